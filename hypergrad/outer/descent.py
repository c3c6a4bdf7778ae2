"""How the unconstrained hyperparameters move: an optimiser, a scheduler, and which steps are taken."""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hypergrad.callback.base import Record
from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import HypergradError, NonFiniteError
from hypergrad.outer.acceptance import Acceptance
from hypergrad.outer.journal import Journal
from hypergrad.outer.objective import OuterObjective


class Descent:
    """Outer steps on an objective.

    Args:
        objective: whose u moves.
        journal: where each evaluation is recorded.
        optimizer: as in `Trainer`.
        scheduler: as in `Trainer`.
        acceptance: as in `Trainer`.

    Raises:
        TypeError: if what `optimizer` makes is none.
        ValueError: if there is a scheduler for an optimiser without a learning rate.
    """

    def __init__(
        self,
        objective: OuterObjective,
        journal: Journal,
        *,
        optimizer: Callable[[list[Tensor]], Optimizer],
        scheduler: Callable[[Optimizer], Any] | None,
        acceptance: Acceptance | None,
    ) -> None:
        self.objective, self.journal, self.acceptance, self.scale = objective, journal, acceptance, 1.0
        self.optimizer = optimizer(list(objective.u.values()))
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"Trainer.optimizer must make a torch.optim.Optimizer, but it made {self.optimizer!r}.")
        if scheduler and "lr" not in self.optimizer.defaults:
            raise ValueError(
                f"A scheduler changes the learning rate, but {type(self.optimizer).__name__} has none; leave it out."
            )
        self.scheduler: Any = scheduler(self.optimizer) if scheduler else None

    def step(self, record: Record) -> Record | None:
        """One outer step from a record to the next; None where the acceptance takes no step.

        Also raised, by what it calls: NonFiniteError if the step leads to values that are not finite.
        """
        before = self.objective.snapshot().u
        self._move(record)
        if self.acceptance is not None:
            return self._accepted(record, before, self.acceptance)
        return self._evaluated(record.step + 1)

    def _move(self, record: Record) -> None:
        """Move u by a step of the optimiser, and the learning rate by one of the scheduler.

        Raises:
            NonFiniteError: if u is not finite then.
        """
        waiting = [record.outer_loss]

        def closure() -> float:
            # A line search asks again, at other u.
            return waiting.pop() if waiting else self._evaluated(record.step).outer_loss

        self.optimizer.step(closure)
        if self.scheduler is not None:
            self.scheduler.step(*([record.outer_loss] if isinstance(self.scheduler, ReduceLROnPlateau) else []))
        bad = [name for name, u in self.objective.u.items() if not u.isfinite().all()]
        if bad:
            raise NonFiniteError(
                f"Outer step {record.step} moved {', '.join(bad)} to NaN or infinity, where ‖dF/dλ‖ was "
                f"{record.scalars()['hypergradient/norm']:.2e}; lower the lr of the optimiser."
            )

    def _accepted(self, record: Record, before: Tensors, acceptance: Acceptance) -> Record | None:
        """The first step from `before` towards the present u that is taken, if there is one.

        Raises:
            HypergradError: if nothing could be computed at the last of them.
        """
        objective, proposed = self.objective, self.objective.snapshot()
        for attempt in range(acceptance.max_rejections + 1):
            objective.place({name: u + self.scale * (proposed.u[name] - u) for name, u in before.items()})
            try:
                found = self._evaluated(record.step + 1)
            except HypergradError:
                # Further than anything can be computed is too far.
                if attempt == acceptance.max_rejections:
                    raise
                found = None
            if found is not None and acceptance.accepts(record.outer_loss, found.outer_loss):
                self.scale = min(1.0, self.scale * acceptance.grow)
                return found
            objective.rewind(proposed)
            self.scale *= acceptance.shrink
        objective.place(before)
        return None

    def _evaluated(self, step: int) -> Record:
        return self.journal.record(self.objective, step)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, which later steps do not change."""
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
