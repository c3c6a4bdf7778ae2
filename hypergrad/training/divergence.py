"""Why a training run blew up."""

from dataclasses import replace

import torch

from hypergrad.core.autodiff import Tensors, detach, flatten, leaves, vjp
from hypergrad.linsolve.spectrum import largest_eigenvalue
from hypergrad.solver.coefficient import one_for_all
from hypergrad.training.dynamics import Dynamics


@torch.no_grad()
def explain_divergence(dynamics: Dynamics, params: Tensors, steps: int) -> str:
    """Where and why a run of `steps` steps from `params` blew up, found by a second run with a check after every step.

    Args:
        dynamics: what a step does.
        params: where the run started, before `problem.initial`.
        steps: the number of steps.
    """
    dynamics, solver = replace(dynamics, hparams=detach(dynamics.hparams)), dynamics.solver
    state, t = solver.start(dynamics.problem, params, dynamics.hparams), 0
    start = here = last = dynamics.oracle(0).evaluate(solver.params(state))
    while t < steps and here.is_finite:
        state, last = dynamics.step(state, t), here
        t += 1
        here = dynamics.oracle(t).evaluate(solver.params(state))
    return (
        f"Training blew up: the inner loss was {start.loss:.3g} at the start, {last.loss:.3g} after inner step "
        f"{t - 1} and {here.loss:.3g} after inner step {t}. " + _bound(dynamics, params, max(t - 1, 0))
    )


def _bound(dynamics: Dynamics, params: Tensors, t: int) -> str:
    """What the learning rate of step t was, and its largest stable value, if that is known."""
    values = dynamics.solver.values_at(dynamics.hparams, t)
    if "lr" not in values:
        return f"Use a more cautious setting of {dynamics.solver}."
    lr = one_for_all(values["lr"])
    if lr is None:
        largest = torch.as_tensor(values["lr"]).max().item()
        return f"The largest of the learning rates was {largest:.2e}; lower it."
    curvature = _largest_curvature(dynamics, params, t)
    bound = dynamics.solver.largest_lr(curvature, values) if curvature > 0 else None
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


def _largest_curvature(dynamics: Dynamics, params: Tensors, t: int) -> float:
    """The largest eigenvalue of the Hessian at `params` on the batch of step t."""
    params = detach(params)
    with torch.enable_grad():
        w = leaves(params)
        _, grad = dynamics.oracle(t)(w)
        return largest_eigenvalue(vjp(flatten(grad), w), flatten(params))
