"""The result of a run, as a table for people and a file for programs."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hypergrad.callback.atomic import replacing
from hypergrad.callback.base import OUTER_LOSS, Callback, Record, Result, Run, claim
from hypergrad.callback.overfitting import overfitting
from hypergrad.callback.result import number
from hypergrad.core.display import counted
from hypergrad.core.errors import described

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_JUDGED = ("dev_loss_in_eval", "dev_accuracy", "test_accuracy")
"""Metrics with a row of their own."""
_MOST_LINES = 8
"""A hyperparameter of more entries has one line for all. A judgement: the losses below stay in sight."""


def show(result: Result, console: "Console | None" = None) -> None:
    """Print each hyperparameter and loss before and after, and remarks on them.

    Args:
        result: of a run.
        console: where to print; standard output when None.
    """
    from rich.console import Console

    console = console or Console()
    console.print(_table(result))
    for sentence in _remarks(result):
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
        warned = overfitting(result, self._problem, self._lowest, _monitored(result))
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


def _table(result: Result) -> "Table":
    """Each hyperparameter and loss, before and after."""
    from rich.markup import escape
    from rich.table import Table

    columns, unit = _columns(result)
    rows = {name: record.scalars() for name, record in columns.items()}
    table = Table("", *columns, title=counted(result.last.step, unit), title_justify="left")
    for name, value in result.last.hparams.items():
        if 1 < value.numel() <= _MOST_LINES:
            for i, label in enumerate(result.last.names(name)):
                numbers = (record.hparams[name].flatten()[i].item() for record in columns.values())
                table.add_row(escape(f"{name}[{label}]"), *(f"{number:.6g}" for number in numbers))
        else:
            table.add_row(escape(name), *(escape(_shown(record, name)) for record in columns.values()))
    table.add_section()
    for tag in ("loss/inner", "loss/dev", "loss/test"):
        if tag in rows["before"]:
            table.add_row(f"{tag[5:]} loss", *(number(numbers.get(tag)) for numbers in rows.values()))
    monitored = () if result.monitor in (OUTER_LOSS, *_JUDGED) else (result.monitor,)
    for name in (*_JUDGED, *monitored):
        if name in result.first.metrics:
            values = (record.metrics.get(name) for record in columns.values())
            table.add_row(escape(_words(name)), *map(number, values))
    return table


def _columns(result: Result) -> tuple[dict[str, Record], str]:
    """The records that the table compares, and the unit of its steps."""
    first, last, best = result.first, result.last, result.best
    if result.stopped == "budget":
        return {"before": first} | ({f"best (trial {best.step})": best} if best.step else {}), "trial"
    columns = {"before": first, "after": last}
    if best.step not in (first.step, last.step):
        what = "best" if result.monitor == OUTER_LOSS else f"lowest {_words(result.monitor)}"
        columns[f"{what} (step {best.step})"] = best
    return columns, "outer step"


def _shown(record: Record, name: str) -> str:
    """The value of a hyperparameter, or the range and the median of many, with the labels of the extremes."""
    value = record.hparams[name].flatten()
    if value.numel() == 0:
        return "no entries"
    if value.numel() == 1:
        return f"{value.item():.6g}"
    low, high, median = value.min().item(), value.max().item(), value.median().item()
    if low == high:
        return f"{low:.6g} for all {value.numel()}"
    digits = 3 if f"{low:.3g}" != f"{high:.3g}" else 6  # they have hardly moved apart yet
    least, most, middle = (f"{x:.{digits}g}" for x in (low, high, median))
    if name not in record.labels:
        return f"{least} to {most}, median {middle}"
    first, last = (record.labels[name][int(i)] for i in (value.argmin(), value.argmax()))
    return f"{least} ({first})\nto {most} ({last})\nmedian {middle}"


def _monitored(result: Result) -> str:
    return "dev loss" if result.monitor == OUTER_LOSS else _words(result.monitor)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _remarks(result: Result) -> list[str]:
    """Remarks on the result, below the table."""
    what = _monitored(result)
    sentences = {
        "outer_steps": [],
        "interrupted": [],
        "budget": [],
        "patience": [f"Stopped early: the {what} had no new minimum for longer than `patience`."],
        "stalled": ["Stopped early: no step in the direction of the optimiser lowered the dev loss."],
    }[result.stopped]
    if result.best.step == 0 < result.last.step and result.stopped != "budget":
        sentences.append(
            f"No step lowered the {what}: the best hyperparameters and model are those before the first step. A "
            "smaller learning rate of the optimiser may help, or max_grad_norm."
        )
    if result.retrained is not None:
        numbers = ", ".join(f"{_words(name)} {value:.6g}" for name, value in result.retrained.items())
        sentences.append(f"retrained on train and dev at the best hyperparameters: {numbers or 'no test part'}")
    return sentences
