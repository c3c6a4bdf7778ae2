"""What a run came to, as a table for people and a file for programs."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from hypergrad.callback.base import Callback, Record, Run, claim


class Summary(Callback):
    """Prints each hyperparameter and loss before and after, and writes them to `summary.json`.

    A run that is cut short leaves `"status": "failed"` with the error in that file.

    Args:
        folder: the folder of the run; created when missing.
        console: where to print; standard output when None.
    """

    def __init__(self, folder: str | Path, console: Console | None = None) -> None:
        self.folder = Path(folder)
        self.console = console or Console()

    def on_start(self, run: Run) -> None:
        claim(self.folder / "summary.json")

    def on_end(self, first: Record, last: Record) -> None:
        remark = str(last.stats.get("adjoint_remark", ""))
        content: dict[str, object] = {"status": "finished", "first": first.scalars(), "last": last.scalars()}
        self._write(content | ({"adjoint_remark": remark} if remark else {}))
        table = Table("", "before", "after", title=f"{last.step} outer steps", title_justify="left")
        for name, value in first.hparams.items():
            table.add_row(name, _shown(value), _shown(last.hparams[name]))
        table.add_section()
        before, after = first.scalars(), last.scalars()
        for tag in ("loss/inner", "loss/dev", "loss/test"):
            if tag in before:
                table.add_row(f"{tag[5:]} loss", f"{before[tag]:.6g}", f"{after[tag]:.6g}")
        self.console.print(table)
        self.console.print(f"Hessian products  {last.num_matvecs}", highlight=False)
        if remark:
            self.console.print(f"adjoint system    {remark}", highlight=False)
        self.console.print(f"wall time         {last.seconds:.1f} s", highlight=False)
        # soft_wrap keeps a long path in one piece, to be copied
        self.console.print(f"folder            {self.folder}", highlight=False, soft_wrap=True)
        self.console.print(f"tensorboard --logdir {self.folder}", highlight=False, soft_wrap=True)

    def on_error(self, error: BaseException, last: Record | None) -> None:
        reached = None if last is None else last.scalars()
        self._write({"status": "failed", "error": f"{type(error).__name__}: {error}", "last": reached})

    def _write(self, content: dict[str, object]) -> None:
        (self.folder / "summary.json").write_text(json.dumps(content, indent=2) + "\n")


def _shown(value: Tensor) -> str:
    if value.numel() == 1:
        return f"{value.item():.6g}"
    low, high = value.min().item(), value.max().item()
    return f"{low:.3g} to {high:.3g}, median {value.median().item():.3g}"
