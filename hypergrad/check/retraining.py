"""The dev loss as a function of the hyperparameters alone: every value is computed by a new training."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import HypergradError
from hypergrad.core.status import Status
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.solver.base import InnerSolver
from hypergrad.training.training import Trained, Training

DevLoss = Callable[[Tensors], Tensor]
"""F(λ), shape (), without a graph."""

_LOOKS = 10
"""Train for this many intervals of the solver's own checks between two looks at ‖φ‖, which cost a gradient each."""

_PATIENCE = 2
"""Stop after this many looks without a new minimum: rounding makes ‖φ‖ rise by chance before it stops falling."""


class RetrainingError(HypergradError):
    """Retraining did not come close enough to the optimum for central differences."""


def after_the_same_run(problem: InnerProblem, solver: InnerSolver, steps: int, start: Tensors) -> DevLoss:
    """F(λ) = f(w_T(λ), λ) after T = `steps` steps of `solver` from `start`, converged or not."""

    def dev_loss(hparams: Tensors) -> Tensor:
        end = Training(solver=solver, steps=steps).run(problem, hparams, start)
        return _outer_loss(problem, end.params, hparams)

    return dev_loss


def at_the_optimum(
    problem: InnerProblem, solver: InnerSolver, hparams: Tensors, start: Tensors, max_steps: int
) -> DevLoss:
    """F(λ) = f(w*(λ), λ), trained until rounding errors stop it, always from the optimum at `hparams`.

    If the inner loss has several minima, this follows the minimum that training from `start` reaches. The implicit
    function theorem gives the hypergradient of that minimum.
    """
    centre = _optimum(problem, solver, hparams, start, max_steps)

    def dev_loss(moved: Tensors) -> Tensor:
        return _outer_loss(problem, _optimum(problem, solver, moved, centre, max_steps), moved)

    return dev_loss


@torch.no_grad()
def _outer_loss(problem: InnerProblem, params: Tensors, hparams: Tensors) -> Tensor:
    return accumulated_outer_loss(problem, params, hparams, problem.outer_batch(0))


def _optimum(problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, max_steps: int) -> Tensors:
    """The parameters where ‖φ‖ has stopped falling.

    Raises:
        RetrainingError: if it still falls after `max_steps` steps, or stopped far from zero.
    """
    eps = torch.finfo(next(iter(params.values())).dtype).eps
    least, failures, steps = math.inf, 0, 0
    while failures < _PATIENCE:
        if steps >= max_steps:
            raise RetrainingError(
                f"Retraining has not converged: the gradient norm is {least:.2e} after {steps} steps, and still falls. "
                "Pass a faster solver, or increase max_steps."
            )
        found = _chunk(problem, solver, hparams, params, eps)
        params, steps = found.params, steps + _chunk_size(solver)
        if found.report.status == Status.CONVERGED:
            return params
        failures = 0 if found.report.grad_norm < least else failures + 1
        least = min(least, found.report.grad_norm)
    if _chunk(problem, solver, hparams, params, eps**0.5).report.status != Status.CONVERGED:
        raise RetrainingError(
            f"Retraining stopped improving at a gradient norm of {least:.2e}, after {steps} steps; it must fall below "
            f"{eps**0.5:.1e} of its value at the start. Make the inner loss the same at every step, or lower lr."
        )
    return params


def _chunk(problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, tol: float) -> Trained:
    # One look, at the end: a training stops early by looking more often, but each look costs a gradient.
    size = _chunk_size(solver)
    return Training(solver=solver, steps=size, tol=tol, check_every=size).run(problem, hparams, params)


def _chunk_size(solver: InnerSolver) -> int:
    return _LOOKS * solver.check_every
