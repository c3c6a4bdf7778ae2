"""Several iterations of conjugate gradient as one function, for operators that can compile it."""

import torch
from torch import Tensor

from hypergrad.errors import IndefiniteError, NonFiniteError
from hypergrad.linsolve.base import bad_product, negative_curvature
from hypergrad.linsolve.low_rank import LowRank
from hypergrad.operator import Matvec, Operator

STEPS = 5
"""Iterations per call."""


def iterations(product: Matvec, x: Tensor, r: Tensor, p: Tensor, rz: Tensor, *inverse: Tensor) -> tuple[Tensor, ...]:
    """`STEPS` iterations of conjugate gradient without a look at anything, pure in its tensors.

    Args:
        product: v ↦ A v.
        x: the iterate, shape (n,).
        r: its residual.
        p: the direction.
        rz: rᵀM⁻¹r, shape ().
        inverse: M⁻¹ by the fields of `LowRank`; none for M = I.

    Returns:
        The same after the iterations, and what they met, shape (3, STEPS): pᵀAp, pᵀp and rᵀr. Once r = 0
        nothing moves.
    """
    met = []
    for _ in range(STEPS):
        Ap = product(p)
        curvature, length = torch.dot(p, Ap), torch.dot(p, p)
        alpha = torch.where(rz > 0, rz / curvature, 0.0)
        x, r = x + alpha * p, r - alpha * Ap
        z = LowRank(*inverse)(r) if inverse else r
        rz, before = torch.dot(r, z), rz
        p = z + torch.where(before > 0, rz / before, 0.0) * p
        met.append(torch.stack([curvature, length, torch.dot(r, r)]))
    return x, r, p, rz, torch.stack(met, dim=1)


def run_fused(
    A: Operator,
    inverse: LowRank | None,
    start: tuple[Tensor, Tensor, Tensor],
    rz: float,
    residual: float,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, float, float, int, bool]:
    """Several iterations per compiled call until ‖r‖ ≤ tol, or fewer than that are left.

    Args:
        A: an operator that compiles.
        inverse: M⁻¹; None for M = I.
        start: the iterate x, its residual r and the direction p, each of shape (n,).
        rz: rᵀM⁻¹r.
        residual: ‖r‖.
        tol: where to stop (absolute).
        max_iter: most iterations.

    Returns:
        The iterate x, r, p, rᵀM⁻¹r, ‖r‖, the number of iterations, and whether what further ones win is lost to
        rounding.
    """
    assert A.compile is not None
    (x, r, p), count = start, 0
    run, square = A.compile(iterations), torch.tensor(rz, dtype=x.dtype, device=x.device)
    while residual > tol and count + STEPS <= max_iter:
        x, r, p, square, met = run(x, r, p, square, *(inverse or ()))
        curvature, residual = require_sound(met, residual, count)
        count += STEPS
        lost = torch.finfo(x.dtype).eps * curvature * torch.linalg.vector_norm(x).item()
        if A.is_rounded and lost > max(tol, residual):
            return x, r, p, square.item(), residual, count, True
    return x, r, p, square.item(), residual, count, False


def require_sound(met: Tensor, residual: float, count: int) -> tuple[float, float]:
    """Check what `STEPS` iterations met, from iteration `count` and a residual on.

    Returns:
        The largest curvature pᵀAp/pᵀp among them, and the residual after the last.

    Raises:
        NonFiniteError: if a product was NaN or infinite.
        IndefiniteError: if a curvature was not positive before r = 0.
    """
    largest = 0.0
    for step, (curvature, length, following) in enumerate(met.T.tolist()):
        if residual == 0:
            break
        if not abs(curvature) < float("inf"):
            raise NonFiniteError(bad_product(count + step + 1))
        if curvature <= 0:
            raise IndefiniteError(negative_curvature(curvature / length, count + step))
        largest, residual = max(largest, curvature / length), following**0.5
    return largest, residual
