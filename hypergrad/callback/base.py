"""The promise of a callback, and the objects that describe a run to it.

Each file of this folder is one callback, or what callbacks share. It imports estimators, problems and plots. The outer
loop calls callbacks; they do not know it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypergrad.callback.record import MOST_ENTRIES as MOST_ENTRIES
from hypergrad.callback.record import MOST_SCALARS as MOST_SCALARS
from hypergrad.callback.record import OUTER_LOSS as OUTER_LOSS
from hypergrad.callback.record import Record as Record
from hypergrad.callback.result import Result as Result
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem


@dataclass(frozen=True)
class Run:
    """What is known when a run starts.

    Attributes:
        outer_steps: planned updates of the hyperparameters; 0 if that is not known.
        problem: what is tuned.
        estimator: how it is trained.
        config: the resolved config, or another description of the run, as nested dicts of plain values.
        resumed_at: the last outer step of a resumed run that is already on disk; None for a new run, and -1 for one
            that begins again in its folder because it was cut short before its first state.
        is_first: whether this process is the only one of the run, or the first. Callbacks are called on every rank, so
            that those that evaluate the problem do so on all; what writes or shows does so on the first.
        best: returns the best record so far, or None before the first one; also while the run goes on. It is None if
            rows of hyperparameters are spread over processes.
        rows: returns the records so far of a resumed run, as rows of `metrics.jsonl` with the numbers that are not
            finite, but without hyperparameters whose rows are spread over processes.
    """

    outer_steps: int
    problem: InnerProblem
    estimator: HypergradEstimator
    config: dict[str, Any] = field(default_factory=dict)
    resumed_at: int | None = None
    is_first: bool = True
    best: "Callable[[], Record | None]" = field(default=lambda: None, repr=False)
    rows: Callable[[], Iterable[dict[str, Any]]] = field(default=tuple, repr=False)


class Callback:
    """What happens around an outer step that is recorded. Every method is optional; none may change its arguments."""

    def writes_to(self) -> Sequence[Path]:
        """The folders that it writes to. A run locks them, so that no other process writes there at the same time."""
        return ()

    def on_start(self, run: Run) -> None:
        """Before the first outer step."""

    def on_step(self, record: Record) -> None:
        """After each estimate that is recorded, with the λ at which it was made; see `Trainer.record_every`."""

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        """After `on_step` of all callbacks: all that is needed to resume the run there, as tensors and plain values.

        The state is built only if a callback defines this method. Later steps do not change it. Its "history", and each
        value of its "trajectory", is a `Sequence` of one entry per record; the records before a step are never copied.
        """

    def on_end(self, result: Result) -> None:
        """After the last step."""

    def on_error(self, error: BaseException, last: Record | None) -> None:
        """When an error or Ctrl-C ends the run before `on_end` has returned; `last` is the last record, if any."""


def claim(path: Path, run: Run) -> None:
    """Make the folder of `path` and require that no other run has written there; a resumed run may have.

    Raises:
        FileExistsError: if the file exists and the run is new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and run.resumed_at is None:
        raise FileExistsError(f"{path} belongs to another run; choose another folder.")
