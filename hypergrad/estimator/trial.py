"""The dev loss at λ by the training of an estimator, without the hypergradient."""

from dataclasses import dataclass

import torch

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.estimator.base import HypergradEstimator, Stats, require_finite_loss
from hypergrad.estimator.implicit import Implicit
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver
from hypergrad.training.training import train


@dataclass(frozen=True)
class Trial:
    """What a training at λ came to.

    Attributes:
        params: where it ended.
        outer_loss: f there.
        stats: `inner_loss`, `inner_grad_norm`, `inner_steps` and `inner_status`, see `Stats`.
    """

    params: Tensors
    outer_loss: float
    stats: Stats


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

    Also raised, by what it calls: HypergradError if training diverges, or a loss is not finite; ValueError if the
    solver cannot train the problem.
    """
    solver = getattr(estimator, "solver", None)
    if not isinstance(solver, InnerSolver):
        raise TypeError(f"A trial trains with the solver of an estimator, but {type(estimator).__name__} has none.")
    start = problem.init_params() if params is None else params
    solver.validate(hparams, estimator.inner_steps, start)
    tol = estimator.inner_tol if isinstance(estimator, Implicit) else 0.0
    trained = train(problem, solver, hparams, start, max_steps=estimator.inner_steps, tol=tol)
    stats: Stats = {
        "inner_loss": trained.end.loss,
        "inner_grad_norm": trained.end.grad_norm,
        "inner_steps": trained.steps,
        "inner_status": trained.status if tol > 0 else "not_required",
    }
    loss = problem.outer_loss(trained.params, hparams, problem.outer_batch(0))
    return Trial(detach(trained.params), require_finite_loss(loss, problem), stats)
