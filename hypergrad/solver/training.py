"""Training without a graph: run a solver until the gradient is small, and say so when it blows up."""

from dataclasses import dataclass

import torch

from hypergrad.autodiff import Tensors, detach
from hypergrad.errors import DivergenceError
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.divergence import explain_divergence
from hypergrad.solver.point import Point, blew_up, look, require_finite


@dataclass(frozen=True)
class Training:
    """What training came to.

    Attributes:
        params: where it ended.
        steps: inner steps taken.
        end: loss and gradient norm there.
        status: "converged", "max_iter" when the steps ran out first, or "rising" when they ran out and the inner
            loss is higher than at the start.
    """

    params: Tensors
    steps: int
    end: Point
    status: str


@torch.no_grad()
def train(
    problem: InnerProblem,
    solver: InnerSolver,
    hparams: Tensors,
    params: Tensors,
    *,
    max_steps: int,
    first_step: int = 0,
    tol: float = 0.0,
    check_every: int = 20,
) -> Training:
    """Train from `params` until ‖∇g(w)‖ ≤ tol ‖∇g(w₀)‖ with w₀ = `problem.init_params()`, or the steps run out.

    The tolerance refers to w₀ and not to the start, so that it means the same after a warm start.

    Args:
        problem: gives the inner loss and its batches.
        solver: the dynamics.
        hparams: λ, natural units.
        params: where to start, before `problem.initial`; not changed.
        max_steps: most inner steps to take, ≥ 0.
        first_step: index of the first batch, ≥ 0.
        tol: relative tolerance on the gradient norm, ≥ 0; 0 takes all steps and looks at the gradient once, at the end.
        check_every: inner steps between two looks at the gradient norm, each of which costs one gradient, ≥ 1.

    Returns:
        The parameters, the steps taken, and the loss and gradient norm at the end.

    Raises:
        NonFiniteError: if the loss or its gradient is NaN or infinite at the start.
        DivergenceError: if training blew up; the message names the step, the loss, and the learning rate's bound.
    """
    hparams, params = detach(hparams), detach(params)
    state = solver.start(problem, params, hparams)
    start = look(problem, solver.params(state), hparams, first_step)
    require_finite(start, hparams)
    goal = tol * look(problem, problem.init_params(), hparams, first_step).grad_norm if tol > 0 else 0.0

    here, steps = start, 0
    while here.grad_norm > goal and steps < max_steps:
        stop = min(steps + check_every, max_steps) if tol > 0 else max_steps
        for t in range(steps, stop):
            state = solver.step(problem, state, hparams, first_step + t)
        steps = stop
        here = look(problem, solver.params(state), hparams, first_step + steps)
        if blew_up(start, here):
            raise DivergenceError(
                explain_divergence(problem, solver, hparams, params, steps=steps, first_step=first_step)
            )
    status = "rising" if here.loss > start.loss else "max_iter"
    if here.grad_norm <= goal:
        status = "converged"
    return Training(params=solver.params(state), steps=steps, end=here, status=status)
