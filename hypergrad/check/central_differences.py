"""Central differences that choose their own step and estimate their own error."""

from dataclasses import dataclass

import torch

from hypergrad.check.retraining import DevLoss
from hypergrad.core.autodiff import Tensors, central_difference
from hypergrad.core.errors import HypergradError

_RATIO = 10**0.5
"""Of successive steps: two per power of ten find the best step within its flat minimum."""

_ABOVE, _BELOW = 4, 2
"""Steps above and below ε^⅓: F may vary on a larger scale than 1, and rounding soon spoils smaller steps."""

_FEWEST = 3
"""Estimates to compare: the one in the middle is judged by both of its neighbours."""


@dataclass(frozen=True)
class Witness:
    """A directional derivative by central differences.

    Attributes:
        value: the estimate.
        uncertainty: how far it may be off, ≥ 0, in its own units.
        step: the step h that it was computed with.
    """

    value: float
    uncertainty: float
    step: float


def directional_derivative(function: DevLoss, point: Tensors, direction: Tensors, *, enough: float = 0.0) -> Witness:
    """d/dt F(x + t d) at t = 0, with the one of several steps at which successive estimates agree best.

    The steps go down from 100 ε^⅓ to 0.1 ε^⅓ by factors of √10, with ε of the dtype. ε^⅓ balances the truncation error
    O(h²) and the rounding error O(ε/h) where F varies on the scale of 1. Truncation shows as a difference from the
    next larger step; rounding and incomplete training show as a difference from the next smaller step. The uncertainty
    of an estimate is the larger of both differences, plus the rounding of F itself, ε |F|/h. Steps at which F raises a
    `HypergradError`, because training diverges for example, are left out.

    Args:
        function: F.
        point: x.
        direction: d, shaped as `point`.
        enough: an uncertainty relative to the value, ≥ 0; once it is reached, no smaller step is tried.

    Returns:
        The estimate with the smallest uncertainty.

    Also raised, by what it calls: the HypergradError of F, if fewer than three steps are left.
    """
    eps = torch.finfo(next(iter(point.values())).dtype).eps
    rounding = eps * abs(function(point).item())
    steps: list[float] = []
    estimates: list[float] = []
    best, failure = Witness(0.0, torch.inf, 0.0), HypergradError("The dev loss is not finite around these values.")
    for rung in range(_ABOVE, -_BELOW - 1, -1):
        step = eps ** (1 / 3) * _RATIO**rung
        try:
            estimates.append(central_difference(function, point, direction, step).item())
            steps.append(step)
        except HypergradError as error:
            failure = error
            continue
        if len(estimates) >= _FEWEST:
            larger, here, smaller = estimates[-3:]
            spread = max(abs(larger - here), abs(here - smaller)) + rounding / steps[-2]
            if spread < best.uncertainty:
                best = Witness(here, spread, steps[-2])
            if spread <= enough * abs(here):
                break
    if best.uncertainty == torch.inf:
        raise failure
    return best
