"""Newton's method on the optimality condition, from an optimum nearby."""

from dataclasses import replace

import torch

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.errors import DivergenceError
from hypergrad.problem.oracle import Oracle
from hypergrad.product.reverse import Reverse
from hypergrad.sensitivity.inner import require_optimal
from hypergrad.sensitivity.optimum import Optimum

_MAX_STEPS = 50
"""Newton steps. A judgement: from an optimum nearby it converges in about ten."""
_MAX_HALVINGS = 30
"""Halvings of a step. A judgement: a step of 2⁻³⁰ gains nothing."""


def newton(start: Optimum, hparams: Tensors, tol: float | None) -> Optimum:
    """The optimum at λ, by w ← w − α (∂φ/∂w)⁻¹ φ(w, λ), with α halved until ‖φ‖ falls.

    It ends when rounding keeps ‖φ‖ from falling further.

    Args:
        start: the optimum at another λ.
        hparams: λ.
        tol: how far from zero φ may be at the end; see `Optimum.at`.

    Returns:
        The optimum.

    Raises:
        DivergenceError: if it does not reach an optimum.
    """
    here = _moved(start, start.params, hparams)
    for _ in range(_MAX_STEPS):
        step = unflatten(here.inverse(here.stationarity.phi).x, here.params)
        ahead = _line_search(here, step)
        if ahead is None:
            break
        here = ahead
    try:
        require_optimal(here.stationarity, here.params, tol)
    except Exception as error:
        raise DivergenceError(
            f"Newton's method from the solution at λ₀ did not reach the one at the new λ: {error} Or go there in "
            "smaller steps, or solve the inner problem there and make a new argmin."
        ) from error
    return here


def _line_search(here: Optimum, step: Tensors) -> Optimum | None:
    size, alpha = here.stationarity.evaluation.grad_norm, 1.0
    if size == 0:
        return None
    for _ in range(_MAX_HALVINGS):
        w = {name: p - alpha * step[name] for name, p in here.params.items()}
        ahead = _moved(here, w, here.hparams)
        if ahead.stationarity.evaluation.grad_norm < size * (1 - alpha / 4):
            return ahead
        alpha /= 2
        if alpha * torch.linalg.vector_norm(flatten(step)) <= torch.finfo(flatten(w).dtype).eps * max(
            1.0, torch.linalg.vector_norm(flatten(w)).item()
        ):
            break
    return None


def _moved(optimum: Optimum, params: Tensors, hparams: Tensors) -> Optimum:
    condition = optimum.condition
    stationarity = Reverse().linearize(Oracle(condition.problem, hparams, condition.batch), params)
    return replace(optimum, params=params, hparams=hparams, stationarity=stationarity)
