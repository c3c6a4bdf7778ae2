"""How the unconstrained hyperparameters move: an optimiser, a scheduler, and which steps are accepted."""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hypergrad.callback.base import Record
from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import HypergradError, NonFiniteError
from hypergrad.data.batch import noted
from hypergrad.estimator.base import Hypergradient
from hypergrad.outer.acceptance import Acceptance
from hypergrad.outer.journal import Journal
from hypergrad.outer.objective import OuterObjective
from hypergrad.outer.requirements import require_comparable, require_same_loss
from hypergrad.outer.spread_requirements import require_entrywise
from hypergrad.outer.suggested_sgd import SuggestedSGD
from hypergrad.outer.torch_settings import explained_division, require_numbers


class Descent:
    """Outer steps on an objective.

    Args:
        objective: holds the u that moves.
        journal: where each evaluation is recorded.
        optimizer: as in `Trainer`.
        scheduler: as in `Trainer`.
        acceptance: as in `Trainer`.

    Raises:
        TypeError: if `optimizer` does not return a torch.optim.Optimizer, or `scheduler` a scheduler.
        ValueError: if there is a scheduler for an optimiser without a learning rate.

    Also raised, by what it calls: ValueError if a setting of the optimiser or the scheduler is NaN.
    """

    def __init__(
        self,
        objective: OuterObjective,
        journal: Journal,
        *,
        optimizer: Callable[[list[Tensor]], Optimizer] | SuggestedSGD,
        scheduler: Callable[[Optimizer], Any] | None,
        acceptance: Acceptance | None,
    ) -> None:
        self.objective, self.journal, self.acceptance, self.scale = objective, journal, acceptance, 1.0
        with noted("Trainer.optimizer made an optimiser of the hyperparameters"):
            self.optimizer = _made(optimizer, objective, journal)
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                f"Trainer.optimizer must make a torch.optim.Optimizer, but it made {self.optimizer!r}; "
                "give a class or a functools.partial of one, such as functools.partial(torch.optim.Adam, lr=0.1)."
            )
        require_numbers("optimizer", self.optimizer, self.optimizer.defaults)
        require_entrywise(objective.spread, self.optimizer)
        require_same_loss(objective.problem, self.optimizer)
        require_comparable(objective.estimator, self.optimizer)
        if scheduler and "lr" not in self.optimizer.defaults:
            raise ValueError(
                f"A scheduler changes the learning rate, but {type(self.optimizer).__name__} has none; leave it out."
            )
        with noted("Trainer.scheduler made a scheduler of the optimiser"):
            self.scheduler: Any = scheduler(self.optimizer) if scheduler else None
        if scheduler and not hasattr(self.scheduler, "step"):
            raise TypeError(
                f"Trainer.scheduler must make a scheduler of torch.optim.lr_scheduler, but it made {self.scheduler!r}; "
                "give a class or a functools.partial of one."
            )
        if scheduler:
            require_numbers("scheduler", self.scheduler, vars(self.scheduler))

    def step(self, record: Record, until: int) -> Record | None:
        """Outer steps from a record to the next, that of step `until`; None if the acceptance rejects every step.

        Also raised, by what it calls: NonFiniteError if a step leads to values that are not finite.
        """
        before = {} if self.acceptance is None else self.objective.snapshot().u
        self._move(record)
        between = range(record.step + 1, until)
        if between:
            self.journal.unrecorded(self.objective, between, self.take)
        self._require_finite(record, until)
        if self.acceptance is not None:
            return self._first_accepted(record, before, self.acceptance)
        found = self._evaluate(until)
        if between:
            self._require_finite_state(record, until)
        return found

    def _move(self, record: Record) -> None:
        """Move u by a step of the optimiser, and the learning rate by one of the scheduler."""
        known = [record.outer_loss]

        def closure() -> float:
            # The first call is at the u of the record; a line search calls again, at other u.
            return known.pop() if known else self._evaluate(record.step).outer_loss

        self.optimizer.step(closure)
        if self.scheduler is not None:
            self._schedule(record)

    def take(self, steps: range) -> tuple[Hypergradient, int]:
        """Take one or more of the outer steps without a record, from the first on, and move u after each.

        Returns:
            An estimate whose counts are those of each of the steps, and how many were taken.

        Also raised, by what it calls: the HypergradError of the estimator.
        """
        found = self.objective.unrecorded(steps.start)
        self.optimizer.step()
        self.step_scheduler()
        return found, 1

    def step_scheduler(self) -> None:
        """A step of the scheduler where the loss is not known."""
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau):
            with explained_division(self.scheduler):
                self.scheduler.step()

    def _require_finite(self, record: Record, until: int) -> None:
        """Require that u is finite after the steps from a record on.

        If the parameters or the carry are not, the estimator knows better what went wrong, and is asked first.

        Raises:
            NonFiniteError: if it is not.
        """
        bad = self.objective.hparams_not_finite()
        if not bad:
            return
        which, when = f"Outer step {record.step}", "where"
        if until > record.step + 1:
            if not set(self.objective.not_finite()) <= set(bad):
                return
            which, when = f"An outer step from {record.step} to {until - 1}", "after the last record, where"
        raise NonFiniteError(
            f"{which} moved {', '.join(bad)} to NaN or infinity, {when} ‖dF/dλ‖ was "
            f"{record.scalars()['hypergradient/norm']:.2e}; lower the lr of the optimiser."
        )

    def _require_finite_state(self, record: Record, until: int) -> None:
        """Require that what the next step starts from is finite, after steps that were not recorded.

        Raises:
            NonFiniteError: if it is not.
        """
        bad = self.objective.not_finite()
        if bad:
            raise NonFiniteError(
                f"{', '.join(bad)} became NaN or infinite between outer step {record.step}, the last record, and "
                f"{until}; lower the lr of the optimiser or of the estimator. With a smaller record_every less is lost."
            )

    def _schedule(self, record: Record) -> None:
        """A step of the scheduler; one that waits for a lower dev loss takes none where that was not evaluated."""
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.step_scheduler()
        elif record.dev_loss is not None:
            self.scheduler.step(record.dev_loss)

    def _first_accepted(self, record: Record, before: Tensors, acceptance: Acceptance) -> Record | None:
        """The record of the first accepted step from `before` towards the current u; None if there is none.

        Raises:
            HypergradError: if the last attempt cannot be computed.
        """
        objective, proposed = self.objective, self.objective.snapshot()
        for attempt in range(acceptance.max_rejections + 1):
            objective.place({name: u + self.scale * (proposed.u[name] - u) for name, u in before.items()})
            try:
                candidate = self._evaluate(record.step + 1)
            except HypergradError:
                # A step that cannot be computed counts as rejected.
                if attempt == acceptance.max_rejections:
                    raise
                candidate = None
            if candidate is not None and acceptance.accepts(record.outer_loss, candidate.outer_loss):
                self.scale = min(1.0, self.scale * acceptance.grow)
                return candidate
            objective.rewind(proposed)
            self.scale *= acceptance.shrink
        objective.place(before)
        return None

    def _evaluate(self, step: int) -> Record:
        return self.journal.record(self.objective, step)

    def state(self) -> dict[str, Any]:
        """What `restore` needs; later steps do not change it."""
        return {
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else copy.deepcopy(self.scheduler.state_dict()),
            "scale": self.scale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.scale = state["scale"]


def _made(
    optimizer: Callable[[list[Tensor]], Optimizer] | SuggestedSGD, objective: OuterObjective, journal: Journal
) -> Optimizer:
    """The optimiser of the hyperparameters of an objective."""
    tensors = list(objective.u.values())
    if not isinstance(optimizer, SuggestedSGD):
        return optimizer(tensors)
    with journal.ledger.counting():
        return optimizer(tensors, objective.problem)
