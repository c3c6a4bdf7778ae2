"""Why a training run blew up."""

import torch

from hypergrad.core.autodiff import Tensors, detach, flatten, leaves, vjp
from hypergrad.linsolve.spectrum import largest_eigenvalue
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.coefficient import coefficient, one_for_all


@torch.no_grad()
def explain_divergence(
    problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, *, steps: int, first_step: int
) -> str:
    """Where and why a run blew up, found by running it again and looking at every step."""
    hparams, params = detach(hparams), detach(params)
    state, t = solver.start(problem, params, hparams), 0
    start = here = last = Oracle(problem, hparams, problem.inner_batch(first_step)).evaluate(solver.params(state))
    while t < steps and here.is_finite:
        state, last = solver.step(problem, state, hparams, t, first_step), here
        t += 1
        here = Oracle(problem, hparams, problem.inner_batch(first_step + t)).evaluate(solver.params(state))
    return (
        f"Training blew up: the inner loss was {start.loss:.3g} at the start, {last.loss:.3g} after inner step "
        f"{t - 1} and {here.loss:.3g} after inner step {t}. "
        + _bound(problem, solver, hparams, params, max(t - 1, 0), first_step)
    )


def _bound(
    problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, t: int, first_step: int
) -> str:
    value = solver.coefficients().get("lr")
    if value is None:
        return f"Use a more cautious setting of {solver}."
    lr = one_for_all(value, hparams, t)
    if lr is None:
        largest = torch.as_tensor(coefficient(value, hparams, t)).max().item()
        return f"The largest of the learning rates was {largest:.2e}; lower it."
    with torch.enable_grad():
        w = leaves(params)
        _, grad = problem.inner_loss_and_gradient(w, hparams, problem.inner_batch(first_step + t))
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
