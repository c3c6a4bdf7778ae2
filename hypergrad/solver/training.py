"""Training without a graph: run a solver until the gradient is small, and say so when it blows up."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, detach, flatten, leaves, vjp
from hypergrad.errors import DivergenceError, NonFiniteError
from hypergrad.linsolve.spectrum import largest_eigenvalue
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, coefficient

_GROWTH = 1e4
"""A gradient this many times its first norm, with a higher loss too, is a run that blew up though not yet infinite."""


@dataclass(frozen=True)
class Point:
    """The inner loss and gradient norm at some parameters.

    Attributes:
        loss: g(w, λ).
        grad_norm: ‖∇_w g(w, λ)‖.
    """

    loss: float
    grad_norm: float

    @classmethod
    def of(cls, loss: Tensor, grad: Tensors) -> "Point":
        """From the tensors, of which no graph is made."""
        with torch.no_grad():
            return cls(loss=loss.item(), grad_norm=torch.linalg.vector_norm(flatten(grad)).item())

    @property
    def is_finite(self) -> bool:
        """Whether both numbers are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


@dataclass(frozen=True)
class Training:
    """What training came to.

    Attributes:
        params: where it ended.
        steps: inner steps taken.
        end: loss and gradient norm there.
        status: "converged", or "max_iter" when the steps ran out first.
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
        params: where to start; not changed.
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
    start = look(problem, params, hparams, first_step)
    require_finite(start, hparams)
    goal = tol * look(problem, problem.init_params(), hparams, first_step).grad_norm if tol > 0 else 0.0

    state, here, steps = solver.init(params), start, 0
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
    status = "converged" if here.grad_norm <= goal else "max_iter"
    return Training(params=solver.params(state), steps=steps, end=here, status=status)


def look(problem: InnerProblem, params: Tensors, hparams: Tensors, t: int) -> Point:
    """The inner loss and gradient norm at `params` on the batch of step t."""
    with torch.no_grad():
        return Point.of(*problem.inner_loss_and_gradient(params, hparams, problem.inner_batch(t)))


def require_finite(point: Point, hparams: Tensors) -> None:
    """Require that the inner loss and its gradient are finite at the start of training, or where there is none.

    Raises:
        NonFiniteError: if they are NaN or infinite.
    """
    if not point.is_finite:
        values = ", ".join(f"{name} = {_shown(value)}" for name, value in hparams.items())
        raise NonFiniteError(
            f"Before any training the inner loss is {point.loss:.3g} and its gradient norm {point.grad_norm:.3g}, "
            f"with {values}. Look for NaN in the train data and for a hyperparameter that went too far."
        )


def blew_up(start: Point, end: Point) -> bool:
    """Whether training from `start` to `end` left the finite numbers, or is plainly on its way there."""
    return not end.is_finite or (end.loss > start.loss and end.grad_norm > _GROWTH * start.grad_norm > 0)


@torch.no_grad()
def explain_divergence(
    problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, *, steps: int, first_step: int
) -> str:
    """Where and why a run blew up, found by running it again and looking at every step."""
    hparams, params = detach(hparams), detach(params)
    start = here = last = look(problem, params, hparams, first_step)
    state, t = solver.init(params), 0
    while t < steps and here.is_finite:
        state, last = solver.step(problem, state, hparams, first_step + t), here
        t += 1
        here = look(problem, solver.params(state), hparams, first_step + t)
    step = first_step + max(t - 1, 0)
    return (
        f"Training blew up: the inner loss was {start.loss:.3g} at the start, {last.loss:.3g} after inner step "
        f"{t - 1} and {here.loss:.3g} after inner step {t}. {_bound(problem, solver, hparams, params, step)}"
    )


def _bound(problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, t: int) -> str:
    value = solver.coefficients().get("lr")
    if value is None:
        return f"Use a more cautious setting of {solver}."
    lr = float(coefficient(value, hparams, t))
    with torch.enable_grad():
        w = leaves(params)
        _, grad = problem.inner_loss_and_gradient(w, hparams, problem.inner_batch(t))
        curvature = largest_eigenvalue(vjp(grad, w), flatten(params))
    bound = solver.largest_lr(curvature, hparams, t) if curvature > 0 else None
    if bound is None:
        return f"The learning rate was {lr:.2e}; lower it."
    if lr > bound:
        return (
            f"The learning rate {lr:.2e} is above {bound:.2e}, the bound for stability with the largest curvature "
            f"{curvature:.2e} at the start; lower it below that."
        )
    return (
        f"The learning rate {lr:.2e} is below {bound:.2e}, the bound for stability with the largest curvature "
        f"{curvature:.2e} at the start, so the curvature grew on the way; lower the learning rate."
    )


def _shown(value: Tensor) -> str:
    return f"{value.item():.3g}" if value.numel() == 1 else f"{value.min().item():.3g} to {value.max().item():.3g}"
