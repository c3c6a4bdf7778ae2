"""What a run has recorded so far."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import torch

from hypergrad.callback.base import MOST_ENTRIES, OUTER_LOSS, Record, Result
from hypergrad.callback.prefix import Prefix
from hypergrad.callback.rows import recorded_rows
from hypergrad.callback.trained_model import TrainedModel
from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.errors import DivergenceError, HypergradError, NonFiniteError, NotConvergedWarning
from hypergrad.core.hyperparameter import shown
from hypergrad.core.placement import placed
from hypergrad.core.ranks import ALONE
from hypergrad.estimator.base import Hypergradient
from hypergrad.estimator.inexact import inexactness
from hypergrad.outer.agreement import Agreement
from hypergrad.outer.kept import KeptScalars, KeptTensors
from hypergrad.outer.labels import Labels
from hypergrad.outer.ledger import Ledger
from hypergrad.outer.objective import OuterObjective
from hypergrad.outer.spread import Spread
from hypergrad.problem.base import InnerProblem

_LOOSE = 2.0
"""Records whose tolerances differ by more than this factor are not compared. A judgement."""


class Journal:
    """The records of a run: its cost, the first, last and best record, the scalars of all records, and the trajectory.

    The trajectory holds the hyperparameters of at most `MOST_ENTRIES` entries that are whole on each process.

    Args:
        like: the hyperparameters.
        monitor: the loss or metric whose minimum is the best record.
        compares: whether it belongs to the same problem in all records; otherwise the last record is the best.
        labels: names of the entries of the hyperparameters, for the records.
        looseness: the factor on the tolerances of a step. A record with more than twice the factor of a later one is
            not compared with it, and no longer the best; None if all steps have the same tolerances.
        is_exact: whether the metrics, and the loss on all of dev, are evaluated in an outer step. Only such a record
            can become the best.
        spread: which hyperparameters have only some rows on this process; none when None.
        agreement: of the ranks of the run; this process is alone when None.
    """

    def __init__(
        self,
        like: Tensors,
        monitor: str = OUTER_LOSS,
        *,
        compares: bool = True,
        labels: Labels | None = None,
        looseness: Callable[[int], float] | None = None,
        is_exact: Callable[[int], bool] = lambda step: True,
        spread: Spread | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        self.agreement = agreement or Agreement(ALONE, rejects=False)
        self.is_exact = is_exact
        self.monitor, self.compares, self.looseness = monitor, compares, looseness
        self.device = next(iter(like.values())).device
        self.ledger = Ledger(labels or {})
        self.history = KeptScalars()
        self._warned: set[str] = set()
        self.spread = spread or Spread({})
        kept = [name for name, x in like.items() if x.numel() <= MOST_ENTRIES and name not in self.spread.shards]
        self._paths = {name: KeptTensors() for name in kept}
        self._records: tuple[Record, ...] = ()

    @property
    def last(self) -> Record | None:
        """The record of the last step; None before the first one."""
        return self._records[1] if self._records else None

    @property
    def best(self) -> Record | None:
        """The best record; None before the first one."""
        return self._records[2] if self._records else None

    def records(self) -> tuple[Record, Record, Record]:
        """The first, the last and the best record."""
        return self._records[0], self._records[1], self._records[2]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The records so far as rows of `metrics.jsonl`."""
        return recorded_rows(self.history, self._paths)

    def whole_records(self) -> list[Record]:
        """The first, the last and the best record with all rows of λ, on all ranks."""
        whole = {record.step: self.spread.whole_record(record) for record in self._records}
        return [whole[record.step] for record in self._records]

    def record(self, objective: OuterObjective, step: int) -> Record:
        """The record of one evaluation as outer step `step`, with the cost of the run so far.

        Also raised, by what it calls: the HypergradError of the estimator, with the step and λ added.
        """
        try:
            with self.ledger.counting(), self.agreement.evaluation():
                evaluation = objective.evaluate(step)
        except HypergradError as error:
            cause = self._cause(objective) if isinstance(error, DivergenceError) else ""
            raise type(error)(f"{error}{cause}{self._whereabouts(step, objective.hparams())}") from error
        self._warn(evaluation.found, step)
        hparams = self.spread.whole(evaluation.hparams)
        found = self.ledger.record(step, evaluation.problem, hparams, evaluation.found, is_exact=self.is_exact(step))
        record = self.spread.record(found)
        return record if self.agreement.peers.world == 1 else self._of_first(record)

    def unrecorded(
        self, objective: OuterObjective, steps: range, take: Callable[[range], tuple[Hypergradient, int]]
    ) -> None:
        """Outer steps of which only the cost is kept; `take` takes some of them, see `Descent.take`.

        Also raised, by what it calls: the HypergradError of the estimator, with the step and λ added.
        """
        try:
            with self.ledger.counting():
                while steps:
                    found, count = take(steps)
                    self.ledger.add(found, count)
                    steps = steps[count:]
                    self.agreement.heed()
        except HypergradError as error:
            raise type(error)(f"{error}{self._whereabouts(steps.start, objective.hparams())}") from error

    def add(self, record: Record) -> None:
        """Keep a record.

        Raises:
            NonFiniteError: if the monitored number is NaN, which has no minimum.
        """
        first, _, best = self._records or (record, record, record)
        now, least = record.monitored(self.monitor), best.monitored(self.monitor)
        if now is not None and math.isnan(now):
            raise NonFiniteError(
                f"The monitored {self.monitor} is NaN at outer step {record.step}, so no step can be called the "
                "best; look for NaN in its data, or monitor outer_loss."
            )
        is_lower = now is not None and (least is None or now < least or self._is_loose(best, record))
        is_best = is_lower or not self.compares
        self.history.append({"step": record.step, **record.scalars()})
        for name, path in self._paths.items():
            path.append(record.hparams[name])
        # Last, so that an interrupt leaves a row too many and never one too few.
        self._records = (first, record, record if is_best else best)

    def result(self, stopped: str, final_model: TrainedModel | None = None) -> Result:
        """The result of the run; `stopped` says why it ended."""
        first, last, best = self.whole_records()
        # An interrupt in `add` may have left entries of a record that is not kept.
        rows = len(self.history) - (self.history[-1]["step"] != last.step)
        return Result(
            first=first,
            last=last,
            best=best,
            stopped=stopped,
            history=self.history[:rows],
            trajectory={name: path.stacked(rows) for name, path in self._paths.items()},
            final_model=final_model,
            monitor=self.monitor,
        )

    def state(self) -> dict[str, Any]:
        """What `restore` needs; later records do not change it."""
        return {
            **self.ledger.state(),
            "warned": sorted(self._warned),
            "history": Prefix(self.history),
            "trajectory": {name: Prefix(path) for name, path in self._paths.items()},
            "records": [{name: getattr(record, name) for name in _SAVED} for record in self._records],
        }

    def restore(self, state: dict[str, Any], problem_at: Callable[[int], InnerProblem]) -> None:
        """Go back to a state; `problem_at` returns the problem of an outer step."""
        self.history = KeptScalars(state["history"])
        kept = {name: path for name, path in state["trajectory"].items() if name not in self.spread.shards}
        self._paths = {name: KeptTensors(placed(path[:], self.device)) for name, path in kept.items()}
        records = (_as_record(content, self.device, problem_at) for content in state["records"])
        self._records = tuple(self.spread.restored(record) for record in records)
        self._warned = set(state["warned"])
        self.ledger.restore(state, self._records[1].seconds)

    def _of_first(self, record: Record) -> Record:
        """A record with the losses, metrics and seconds of the first rank, by which all ranks decide."""
        exact = math.nan if record.exact_loss is None else record.exact_loss
        own = [record.outer_loss, exact, record.seconds, *record.metrics.values()]
        loss, exact, seconds, *metrics = self.agreement.peers.first_numbers(own)
        return replace(
            record,
            outer_loss=loss,
            exact_loss=None if record.exact_loss is None else exact,
            seconds=seconds,
            metrics=dict(zip(record.metrics, metrics, strict=True)),
        )

    def _is_loose(self, earlier: Record, record: Record) -> bool:
        """Whether an earlier record was trained too loosely to be compared with this one."""
        if self.looseness is None:
            return False
        return self.looseness(earlier.step) > _LOOSE * self.looseness(record.step)

    def _warn(self, found: Hypergradient, step: int) -> None:
        """Warn that an estimate is inexact, once for each reason."""
        for kind, message in inexactness(found).items():
            if kind not in self._warned:
                self._warned.add(kind)
                warnings.warn(
                    f"From outer step {step} on, {message} This is said once; every step is in the metrics.",
                    NotConvergedWarning,
                    stacklevel=2,
                )

    def _cause(self, objective: OuterObjective) -> str:
        """What the estimator says about a divergence since the last record."""
        if self.last is None or self.spread:
            return ""
        tried, carry = detach(objective.hparams()), objective.snapshot().carry
        said = objective.estimator.explain_divergence(
            self.last.problem, self.last.hparams, self.last.params, tried=tried, carry=carry
        )
        return f" {said}" if said else ""

    def _whereabouts(self, step: int, hparams: Tensors) -> str:
        """Where an error occurred, if a step of the optimiser led there."""
        if self.last is None:
            return ""
        before, step_before = self.last.hparams, self.last.step
        when = "" if step - step_before <= 1 else f" in outer step {step_before}, the last record"
        moves = [f"{name} = {shown(value)} (from {shown(before[name])}{when})" for name, value in hparams.items()]
        return (
            f" This was in outer step {step}, where the optimiser tried {', '.join(moves)}; if that is further than it "
            "should go, lower the lr of the optimiser, or use one without a line search."
        )


_SAVED = tuple(field.name for field in fields(Record) if field.name != "problem")


def _as_record(content: dict[str, Any], device: torch.device, problem_at: Callable[[int], InnerProblem]) -> Record:
    moved: dict[str, Any] = {key: placed(content[key], device) for key in ("hparams", "grad", "params")}
    return Record(**(content | moved), problem=problem_at(content["step"]))
