"""The dev loss at λ by the training of an estimator, without the hypergradient."""

from dataclasses import dataclass

import torch

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.status import Status
from hypergrad.estimator.base import HypergradEstimator, require_finite_loss
from hypergrad.estimator.implicit import Implicit
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver
from hypergrad.training.report import TrainingReport
from hypergrad.training.training import train


@dataclass(frozen=True)
class Trial:
    """What a training at λ came to.

    Attributes:
        params: where it ended.
        outer_loss: f there.
        training: how it was trained.
    """

    params: Tensors
    outer_loss: float
    training: TrainingReport


@torch.no_grad()
def trial(
    problem: InnerProblem, estimator: HypergradEstimator, hparams: Tensors, params: Tensors | None = None
) -> Trial:
    """Train at `hparams` as `estimator` would, with its solver, steps and tolerance, and judge the end.

    Args:
        problem: what is tuned.
        estimator: whose training it is; its hypergradient is not formed.
        hparams: λ in natural units.
        params: where training starts; `problem.init_params()` when None.

    Raises:
        TypeError: if the estimator has no solver.
        HypergradError: if training diverges, or a loss is not finite.
        ValueError: if the solver cannot train the problem.
    """  # noqa: DOC502
    solver = getattr(estimator, "solver", None)
    if not isinstance(solver, InnerSolver):
        raise TypeError(f"A trial trains with the solver of an estimator, but {type(estimator).__name__} has none.")
    start = problem.init_params() if params is None else params
    solver.validate(hparams, estimator.inner_steps, start)
    tol = estimator.inner_tol if isinstance(estimator, Implicit) else 0.0
    trained = train(problem, solver, hparams, start, max_steps=estimator.inner_steps, tol=tol)
    status = Status(trained.status) if tol > 0 else Status.NOT_REQUIRED
    report = TrainingReport(trained.end.loss, trained.end.grad_norm, trained.steps, status)
    loss = problem.outer_loss(trained.params, hparams, problem.outer_batch(0))
    return Trial(detach(trained.params), require_finite_loss(loss, problem), report)
