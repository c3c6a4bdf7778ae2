"""Why a single-loop method blew up."""

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import NonFiniteError
from hypergrad.problem.base import InnerProblem
from hypergrad.single_loop.adjoint import AdjointMethod
from hypergrad.single_loop.base import Method
from hypergrad.single_loop.mean_directions import MeanDirections
from hypergrad.single_loop.step_sizes import inner_curvatures
from hypergrad.solver.coefficient import Coefficient, coefficient, one_for_all

_BATCHES = 4
"""Batches whose curvature is measured. A judgement: the steepest of four is seldom much below that of all."""
_OUTER = "lower the lr of the outer optimiser"


def explain_steps(
    method: Method, problem: InnerProblem, hparams: Tensors, params: Tensors, tried: Tensors, t: int
) -> str:
    """Which step was too large, by the curvature of the inner loss at the last good point.

    Args:
        method: with a solver.
        problem: what is tuned.
        hparams: the last good λ.
        params: the last good w.
        tried: λ where the losses were not finite, or exploded.
        t: moves so far.
    """
    steps = _steps(method, hparams, t)
    for hp, where in ((hparams, "at the last good point"), (tried, "where the optimiser moved λ then")):
        bad = [name for name, x in hp.items() if not x.isfinite().all()]
        if bad:
            return f"{', '.join(bad)} became NaN or infinite, so {_OUTER}."
        curvature = _largest_curvature(problem, hp, params)
        unstable = _unstable(method, steps, curvature, hp, t)
        if unstable:
            initial = _largest_curvature(problem, problem.init_hparams(), params)
            said = f"{unstable} with the largest curvature of a batch, {curvature:.2e}, {where}"
            if _unstable(method, steps, initial, hp, t):
                return f"{said}; lower it."
            return f"{said}; with the initial λ that is {initial:.2e}. So {_OUTER}, or keep λ in a range (hg.interval)."
    listed = ", ".join(f"{name} = {lr:.2e}" for name, lr in steps.items())
    return (
        f"The steps of the method, {listed or repr(method.known_solver)}, are below their bound for the largest "
        f"curvature of a batch, {curvature:.2e}. So λ moved faster than w and v can follow, or the curvature grew: "
        f"{_OUTER} first."
    )


def _steps(method: Method, hparams: Tensors, t: int) -> dict[str, float]:
    """The step sizes of move t by name, where they are one number."""
    coefficients: dict[str, Coefficient] = {}
    if "lr" in method.known_solver.coefficients():
        coefficients["solver.lr"] = method.known_solver.coefficients()["lr"]
    if isinstance(method, AdjointMethod) and method.adjoint_lr is not None:
        coefficients["adjoint_lr"] = method.adjoint_lr
    found = {name: one_for_all(coefficient(value, hparams, t)) for name, value in coefficients.items()}
    return {name: lr for name, lr in found.items() if lr is not None}


def _unstable(method: Method, steps: dict[str, float], curvature: float, hparams: Tensors, t: int) -> str:
    """Which step is above its bound for a curvature, and by how much; "" if none is."""
    if not curvature > 0:
        return ""
    bounds = {
        "solver.lr": method.known_solver.largest_lr(
            curvature + method.added_curvature, method.known_solver.values_at(hparams, t)
        ),
        "adjoint_lr": 2 / curvature,
    }
    for name, lr in steps.items():
        bound = bounds[name]
        if bound is not None and lr > bound:
            return f"{type(method).__name__}.{name} = {lr:.2e} is above {bound:.2e}, the bound for stability"
    return ""


def _largest_curvature(problem: InnerProblem, hparams: Tensors, params: Tensors) -> float:
    """The largest curvature of the inner loss on a few batches; infinite if products are not finite."""
    try:
        return inner_curvatures(MeanDirections.of(problem, _BATCHES, 0, 0), params, hparams)[2]
    except NonFiniteError:
        return float("inf")
