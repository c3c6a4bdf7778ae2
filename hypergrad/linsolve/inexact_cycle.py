"""Conjugate gradient on products that have errors."""

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import Matvec, Operator
from hypergrad.linsolve.base import bad_product, negative_curvature
from hypergrad.linsolve.krylov import Cycle, norm
from hypergrad.linsolve.lanczos import Lanczos


def inexact_cycle(A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
    """Iterate on A d = r from d = 0, as conjugate gradient does, but only as far as the errors of the products allow.

    Once the residual is as small as the errors, the directions p are made of them. Their curvature pᵀAp may then be
    tiny, which makes a step of any length, or negative though A is positive definite. So the cycle ends where the
    errors hide the sign of the curvature, and gives the iterate of the smallest residual before that.

    Args:
        A: symmetric positive definite, with an `inaccuracy`.
        inverse: v ↦ M⁻¹ v, or None for M = I.
        r: shape (n,).
        tol: ≥ 0.
        max_iter: ≥ 1.

    Returns:
        The correction d.

    Raises:
        NonFiniteError: if a product is NaN or infinite.
        IndefiniteError: if a curvature is more negative than the errors explain.
    """
    x, z = torch.zeros_like(r), r if inverse is None else inverse(r)
    p, rz, count, lanczos = z.clone(), torch.dot(r, z).item(), 0, Lanczos()
    start = residual = least = norm(r, 0)
    best = x.clone()
    while residual > tol and count < max_iter:
        Ap = A.matvec(p)
        count += 1
        curvature = torch.dot(p, Ap).item()
        if not abs(curvature) < float("inf"):
            raise NonFiniteError(bad_product(count))
        if curvature <= 0:
            if not _is_hidden(curvature, A, p, Ap, lanczos):
                raise IndefiniteError(negative_curvature(curvature / torch.dot(p, p).item(), count - 1))
            residual = torch.inf
            break
        x.add_(p, alpha=rz / curvature)
        r.sub_(Ap, alpha=rz / curvature)
        z = r if inverse is None else inverse(r)
        previous, rz, residual = rz, torch.dot(r, z).item(), norm(r, count)
        lanczos.add(previous, curvature, rz)
        if residual < least:
            best.copy_(x)
            least = residual
        p.mul_(rz / previous).add_(z)
    if residual > start:
        x, residual = best, least
    return Cycle(x, residual, count, ends=lanczos.ends())


def _is_hidden(curvature: float, A: Operator, p: Tensor, Ap: Tensor, lanczos: Lanczos) -> bool:
    """Whether errors of A p explain a curvature that is not positive."""
    assert A.inaccuracy is not None
    length, ends = torch.linalg.vector_norm(p).item(), lanczos.ends()
    size = max(torch.linalg.vector_norm(Ap).item(), 0.0 if ends is None else ends[1] * length)
    return -curvature <= A.inaccuracy() * size * length
