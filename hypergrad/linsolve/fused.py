"""Several iterations of conjugate gradient as one function, for operators that can compile it."""

import torch
from torch import Tensor

from hypergrad.errors import IndefiniteError, NonFiniteError
from hypergrad.linsolve.base import bad_product, negative_curvature
from hypergrad.operator import Matvec

STEPS = 5
"""Iterations per call."""


def iterations(product: Matvec, x: Tensor, r: Tensor, p: Tensor, rr: Tensor) -> tuple[Tensor, ...]:
    """`STEPS` iterations of conjugate gradient without a look at anything, pure in its tensors.

    Args:
        product: v ↦ A v.
        x: the iterate, shape (n,).
        r: its residual.
        p: the direction.
        rr: rᵀr, shape ().

    Returns:
        The same after the iterations, and what they met, shape (3, STEPS): pᵀAp, pᵀp and rᵀr. Once r = 0 nothing moves.
    """
    met = []
    for _ in range(STEPS):
        Ap = product(p)
        curvature, length = torch.dot(p, Ap), torch.dot(p, p)
        alpha = torch.where(rr > 0, rr / curvature, 0.0)
        x, r = x + alpha * p, r - alpha * Ap
        rr, before = torch.dot(r, r), rr
        p = r + torch.where(before > 0, rr / before, 0.0) * p
        met.append(torch.stack([curvature, length, rr]))
    return x, r, p, rr, torch.stack(met, dim=1)


def require_sound(met: Tensor, before: float, count: int) -> float:
    """Check what `STEPS` iterations met, from iteration `count` on.

    Returns:
        The largest curvature pᵀAp/pᵀp among them.

    Raises:
        NonFiniteError: if a product was NaN or infinite.
        IndefiniteError: if a curvature was not positive before r = 0.
    """
    largest, rr = 0.0, before
    for step, (curvature, length, following) in enumerate(met.T.tolist()):
        if rr == 0:
            break
        if not abs(curvature) < float("inf"):
            raise NonFiniteError(bad_product(count + step + 1))
        if curvature <= 0:
            raise IndefiniteError(negative_curvature(curvature / length, count + step))
        largest, rr = max(largest, curvature / length), following
    return largest
