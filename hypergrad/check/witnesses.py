"""The independent witness for each estimator: central differences through the training that it differentiates."""

from collections.abc import Hashable

from hypergrad.check.central_differences import Witness, directional_derivative
from hypergrad.check.directions import Directions
from hypergrad.check.retraining import DevLoss, after_the_same_run, at_the_optimum
from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.estimator.forward import Forward
from hypergrad.estimator.unrolled import Unrolled
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver

_THROUGH_TRAINING = (Unrolled, Forward)
"""The estimators whose F is the dev loss after as many steps as they make; F of the others is that at the optimum."""

_ENOUGH = 0.01
"""A witness this much more certain than the tolerance decides the comparison; smaller steps would not change it."""


class Witnesses:
    """The witnesses of estimators along some directions; estimators of the same F share theirs.

    Args:
        problem: what is tuned.
        params: where all training starts.
        directions: the point λ and the directions.
        solver: trains at the optimum; None for the own solver of each estimator.
        tol: the relative error that is allowed.
        max_steps: most inner steps of one retraining to the optimum.
    """

    def __init__(
        self,
        problem: InnerProblem,
        params: Tensors,
        directions: Directions,
        *,
        solver: InnerSolver | None,
        tol: float,
        max_steps: int,
    ) -> None:
        self.problem, self.params, self.directions = problem, params, directions
        self.solver, self.enough, self.max_steps = solver, _ENOUGH * tol, max_steps
        self._known: dict[Hashable, list[Witness] | HypergradError] = {}

    def of(self, estimator: HypergradEstimator) -> list[Witness] | HypergradError:
        """A witness for every direction, or the error because of which there is none."""
        solver = self._solver_of(estimator)
        same_run = isinstance(estimator, _THROUGH_TRAINING)
        key = (solver, estimator.inner_steps) if same_run else solver
        if key not in self._known:
            try:
                if same_run:
                    dev_loss = after_the_same_run(self.problem, solver, estimator.inner_steps, self.params)
                else:
                    hparams = self.directions.hparams
                    dev_loss = at_the_optimum(self.problem, solver, hparams, self.params, self.max_steps)
                self._known[key] = [self._witness(dev_loss, unit) for unit in self.directions.units]
            except HypergradError as error:
                self._known[key] = error
        return self._known[key]

    def _witness(self, dev_loss: DevLoss, unit: Tensors) -> Witness:
        at = self.directions
        return directional_derivative(lambda u: dev_loss(at.natural(u)), at.u, unit, enough=self.enough)

    def _solver_of(self, estimator: HypergradEstimator) -> InnerSolver:
        """The solver that trains the witness.

        Raises:
            ValueError: if there is none.
        """
        own = None if estimator.training is None else estimator.training.solver
        solver = own if isinstance(estimator, _THROUGH_TRAINING) or self.solver is None else self.solver
        if solver is None:
            raise ValueError(f"{type(estimator).__name__} has no solver to retrain with; pass solver=.")
        return solver
