"""What a run has spent so far."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from hypergrad.callback.base import Record
from hypergrad.core.autodiff import Tensors
from hypergrad.core.cost import Spent
from hypergrad.estimator.base import Hypergradient, require_finite_loss
from hypergrad.estimator.dev_loss import Retraining
from hypergrad.estimator.report import flat
from hypergrad.outer.labels import Labels
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.parts import accumulated_outer_loss


class Ledger:
    """Gradients, Hessian products and inner steps since the run began, and the time since the first `counting`.

    Args:
        labels: of the hyperparameters, for the records.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.num_matvecs, self.num_inner_steps, self.cost = 0, 0, Spent()
        self._begin: float | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the gradients and products of training in the block, also if an error ends it."""
        if self._begin is None:
            self._begin = time.perf_counter()  # not earlier: an optimiser's first import takes a second
        with self.cost.counting():
            yield

    def seconds(self) -> float:
        """Wall time since the first `counting`, including earlier parts of a resumed run."""
        return 0.0 if self._begin is None else time.perf_counter() - self._begin

    def add(self, found: Hypergradient | Retraining, times: int = 1) -> None:
        """Add what an estimate reports of its cost, as often as there were steps like it."""
        if isinstance(found, Hypergradient):
            self.num_matvecs += times * (found.num_matvecs + (found.error_bar.num_matvecs if found.error_bar else 0))
        self.num_inner_steps += times * (found.training.steps if found.training else 0)

    def record(
        self,
        step: int,
        problem: InnerProblem,
        hparams: Tensors,
        found: Hypergradient | Retraining,
        *,
        is_exact: bool = True,
    ) -> Record:
        """What was found at λ in outer step `step`, with the cost of the run so far.

        Args:
            step: the outer step.
            problem: of that step.
            hparams: λ.
            found: the estimate, or a training whose dev loss is that of all of dev.
            is_exact: whether to evaluate the metrics, and the loss on all of dev if the estimate has that of a sample.
        """
        self.add(found)
        with torch.no_grad():
            metrics = {name: float(x) for name, x in problem.metrics(found.params, hparams).items()} if is_exact else {}
        return Record(
            step=step,
            hparams=hparams,
            grad=found.grad if isinstance(found, Hypergradient) else {},
            params=found.params,
            outer_loss=found.outer_loss,
            metrics=metrics,
            stats=found.stats if isinstance(found, Hypergradient) else flat(found.training),
            num_matvecs=self.num_matvecs + self.cost.matvecs,
            num_gradients=self.cost.gradients,
            num_inner_steps=self.num_inner_steps,
            seconds=self.seconds(),
            problem=problem,
            labels=self.labels,
            exact_loss=_exact_loss(problem, hparams, found) if is_exact and problem.samples_outer else None,
        )

    def state(self) -> dict[str, Any]:
        """What `restore` needs; later counts do not change it."""
        return {
            "num_matvecs": self.num_matvecs,
            "num_inner_steps": self.num_inner_steps,
            "cost": asdict(self.cost),
        }

    def restore(self, state: dict[str, Any], seconds: float) -> None:
        """Go back to a state, `seconds` after the run began."""
        self.num_matvecs, self.num_inner_steps = state["num_matvecs"], state["num_inner_steps"]
        self.cost = Spent(**state["cost"])
        self._begin = time.perf_counter() - seconds


@torch.no_grad()
def _exact_loss(problem: InnerProblem, hparams: Tensors, found: Hypergradient | Retraining) -> float:
    """The loss on all of dev."""
    if isinstance(found, Retraining):
        return found.outer_loss
    loss = accumulated_outer_loss(problem, found.params, hparams, problem.whole_outer_batch())
    return require_finite_loss(loss, problem)
