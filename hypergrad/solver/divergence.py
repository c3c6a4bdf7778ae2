"""Why a training run blew up."""

import torch

from hypergrad.autodiff import Tensors, detach, flatten, leaves, vjp
from hypergrad.linsolve.spectrum import largest_eigenvalue
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, coefficient
from hypergrad.solver.point import look


@torch.no_grad()
def explain_divergence(
    problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, *, steps: int, first_step: int
) -> str:
    """Where and why a run blew up, found by running it again and looking at every step."""
    hparams, params = detach(hparams), detach(params)
    state, t = solver.start(problem, params, hparams), 0
    start = here = last = look(problem, solver.params(state), hparams, first_step)
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
        curvature = largest_eigenvalue(vjp(flatten(grad), w), flatten(params))
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
