"""What a run changed, in words: for a terminal and for a notebook."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hypergrad.callback.record import OUTER_LOSS, Record
from hypergrad.core.display import counted

_JUDGED = ("dev_loss_in_eval", "dev_accuracy", "test_accuracy")
"""Metrics with a row of their own."""
_MOST_LINES = 8
"""A hyperparameter of more entries has one line for all. A judgement: the losses below stay in sight."""


class Outcome(Protocol):
    """What is read of a `Result`, which imports this file."""

    @property
    def first(self) -> Record: ...
    @property
    def last(self) -> Record: ...
    @property
    def best(self) -> Record: ...
    @property
    def stopped(self) -> str: ...
    @property
    def monitor(self) -> str: ...
    @property
    def retrained(self) -> Mapping[str, float] | None: ...


@dataclass(frozen=True)
class BeforeAfter:
    """Each hyperparameter and loss before and after a run.

    Attributes:
        title: the number of steps.
        columns: such as "before" and "after".
        sections: of rows, each a name and a text for each column: the hyperparameters, and the losses.
        remarks: sentences on the result.
    """

    title: str
    columns: list[str]
    sections: list[list[list[str]]]
    remarks: list[str]


def before_after(result: Outcome) -> BeforeAfter:
    """The table of a result, with remarks."""
    columns, unit = _columns(result)
    sections = [_hyperparameters(columns), _losses(columns, result.monitor)]
    return BeforeAfter(counted(result.last.step, unit), list(columns), sections, _remarks(result))


def number(value: float | None) -> str:
    """A number as text; "unknown" if it was not evaluated."""
    return "unknown" if value is None else f"{value:.6g}"


def words_of(name: str) -> str:
    """What is monitored, or a metric, in words."""
    return "dev loss" if name == OUTER_LOSS else name.replace("_", " ")


def _hyperparameters(columns: dict[str, Record]) -> list[list[str]]:
    rows, (first, *_) = list[list[str]](), columns.values()
    for name, value in first.hparams.items():
        if 1 < value.numel() <= _MOST_LINES:
            for i, label in enumerate(first.names(name)):
                entries = (record.hparams[name].flatten()[i].item() for record in columns.values())
                rows.append([f"{name}[{label}]", *map(number, entries)])
        else:
            rows.append([name, *(_shown(record, name) for record in columns.values())])
    return rows


def _losses(columns: dict[str, Record], monitor: str) -> list[list[str]]:
    scalars, (first, *_) = [record.scalars() for record in columns.values()], columns.values()
    tags = [tag for tag in ("loss/inner", "loss/dev", "loss/test") if tag in scalars[0]]
    rows = [[f"{tag[5:]} loss", *(number(one.get(tag)) for one in scalars)] for tag in tags]
    monitored = () if monitor in (OUTER_LOSS, *_JUDGED) else (monitor,)
    for name in (*_JUDGED, *monitored):
        if name in first.metrics:
            rows.append([words_of(name), *(number(record.metrics.get(name)) for record in columns.values())])
    return rows


def _columns(result: Outcome) -> tuple[dict[str, Record], str]:
    """The records that the table compares, and the unit of its steps."""
    first, last, best = result.first, result.last, result.best
    if result.stopped == "budget":
        return {"before": first} | ({f"best (trial {best.step})": best} if best.step else {}), "trial"
    columns = {"before": first, "after": last}
    if best.step not in (first.step, last.step):
        what = "best" if result.monitor == OUTER_LOSS else f"lowest {words_of(result.monitor)}"
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


def _remarks(result: Outcome) -> list[str]:
    """Remarks on the result, below the table."""
    what = words_of(result.monitor)
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
        numbers = ", ".join(f"{words_of(name)} {value:.6g}" for name, value in result.retrained.items())
        sentences.append(f"retrained on train and dev at the best hyperparameters: {numbers or 'no test part'}")
    return sentences
