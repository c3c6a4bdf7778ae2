"""The result of a run, as a table for people and a file for programs."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hypergrad.callback.atomic import replacing
from hypergrad.callback.base import Callback, Record, Result, Run, claim
from hypergrad.callback.before_after import BeforeAfter, before_after, words_of
from hypergrad.callback.overfitting import overfitting
from hypergrad.core.errors import described

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def show(result: Result, console: "Console | None" = None) -> None:
    """Print each hyperparameter and loss before and after, and remarks on them.

    Args:
        result: of a run.
        console: where to print; standard output when None.
    """
    from rich.console import Console

    console = console or Console()
    compared = before_after(result)
    console.print(_table(compared))
    for sentence in compared.remarks:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


class Summary(Callback):
    """Prints each hyperparameter and loss before and after, and writes them to `summary.json`.

    If a run is cut short, the file has `"status": "failed"`, or `"interrupted"`, and the error.

    Args:
        folder: the folder of the run; created when missing.
        console: where to print; standard output when None.
    """

    _writes = True  # see `Run.is_first`

    def __init__(self, folder: str | Path, console: "Console | None" = None) -> None:
        from rich.console import Console

        self.folder = Path(folder)
        self.console = console or Console()

    def writes_to(self) -> Sequence[Path]:
        return (self.folder,)

    def on_start(self, run: Run) -> None:
        self._writes = run.is_first
        if self._writes:
            claim(self.folder / "summary.json", run)
            # That of an earlier part of the run would be taken for the result, if this part is killed.
            (self.folder / "summary.json").unlink(missing_ok=True)
        self._problem, self._lowest = run.problem, None

    def on_step(self, record: Record) -> None:
        if "test_loss" in record.metrics:
            lowest = record if self._lowest is None else self._lowest
            self._lowest = min(lowest, record, key=lambda one: one.metrics["test_loss"])

    def on_end(self, result: Result) -> None:
        # It may evaluate the problem, on all ranks.
        warned = overfitting(result, self._problem, self._lowest, words_of(result.monitor))
        if not self._writes:
            return
        remarks = {key: str(result.last.stats.get(key, "")) for key in ("training_remark", "adjoint_remark")}
        self._write(_content(result) | {key: remark for key, remark in remarks.items() if remark})
        show(result, self.console)
        for sentence in warned:
            self._say(sentence)
        if self._problem.samples_outer:
            self._say("These dev losses are exact, on all of dev; each outer step moved by the loss on a sample of it.")
        self._say(f"gradients         {result.last.num_gradients}")
        self._say(f"Hessian products  {result.last.num_matvecs}")
        for title, remark in zip(("inner training", "adjoint system"), remarks.values(), strict=True):
            if remark:
                self.console.print(f"{title:<18}{remark}", highlight=False, markup=False)
        self._say(f"dtype             {_dtype(result)}")
        self._say(f"wall time         {result.last.seconds:.1f} s")
        self._say(f"folder            {self.folder}")
        self._say(f"tensorboard --logdir {shlex.quote(str(self.folder))}")

    def on_error(self, error: BaseException, last: Record | None) -> None:
        if not self._writes:
            return
        reached = None if last is None else last.scalars()
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        self._write({"status": status, "error": described(error), "last": reached})

    def _say(self, line: str) -> None:
        # soft_wrap keeps a long path on one line, so that it can be copied
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _write(self, content: dict[str, object]) -> None:
        with replacing(self.folder / "summary.json") as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


def _content(result: Result) -> dict[str, object]:
    """The result as plain values."""
    return {
        "status": "finished",
        "stopped": result.stopped,
        "dtype": _dtype(result),
        "first": result.first.scalars(),
        "last": result.last.scalars(),
        "monitor": result.monitor,
        "best": {"step": result.best.step, **result.best.scalars()},
        "retrained": result.retrained,
    }


def _dtype(result: Result) -> str:
    return str(next(iter(result.last.hparams.values())).dtype).removeprefix("torch.")


def _table(compared: BeforeAfter) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table("", *compared.columns, title=compared.title, title_justify="left")
    for section in compared.sections:
        table.add_section()
        for row in section:
            table.add_row(*map(escape, row))
    return table
