"""How far to go along a direction."""

import math

import torch
from torch import Tensor

from hypergrad.solver.objective import LineSearchPoint, Objective

_ENOUGH = 1e-4
"""The part of the decrease predicted by the slope that a step must reach: the usual value, which refuses few steps."""
_FLAT = 0.9
"""The part of the slope that may remain after a step: the usual value for Newton and quasi-Newton directions."""
_MAX_TRIALS = 40
"""A judgement: enough unless the first α is wrong by more than 2^40 ≈ 1e12."""


def line_search(
    objective: Objective, start: LineSearchPoint, direction: Tensor, length: float = 1.0
) -> LineSearchPoint | None:
    """A point start + α p that fulfils the weak Wolfe conditions, by doubling and bisection from α = `length`.

    With φ(α) = g(w + α p): φ(α) ≤ φ(0) + 1e-4 α φ'(0) and φ'(α) ≥ 0.9 φ'(0). Close to a minimum, rounding hides the
    differences of g in the first condition. So if φ(α) is above φ(0) by at most ε^⅓ |φ(0)|, the same condition for the
    slopes of a quadratic is enough: φ'(α) ≤ (1 − 2e-4) |φ'(0)|.

    Args:
        objective: g.
        start: w.
        direction: p, shape (n,).
        length: the α to try first, > 0.

    Returns:
        The point. If no α fulfils both conditions, the last one that fulfils the first; None if there is none.

    Source: Lewis & Overton, "Nonsmooth optimization via quasi-Newton methods", Mathematical Programming (2013); Hager &
    Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search", SIAM Journal on
    Optimization (2005).
    """
    slope = torch.dot(start.grad, direction).item()
    if not slope < 0:
        return None
    noise = torch.finfo(direction.dtype).eps ** (1 / 3) * abs(start.loss)
    best: LineSearchPoint | None = None
    low, high, alpha = 0.0, math.inf, length
    for _ in range(_MAX_TRIALS):
        there = objective(start.w + alpha * direction)
        slope_there = torch.dot(there.grad, direction).item()
        falls = there.loss <= start.loss + _ENOUGH * alpha * slope
        falls |= there.loss <= start.loss + noise and slope_there <= (2 * _ENOUGH - 1) * slope
        if falls and slope_there >= _FLAT * slope:
            return there
        if falls:
            low, best = alpha, there
        else:
            high = alpha
        alpha = (low + high) / 2 if high < math.inf else 2 * alpha
    return best
