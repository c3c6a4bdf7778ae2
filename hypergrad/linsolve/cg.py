"""Conjugate gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.errors import IndefiniteError, NonFiniteError
from hypergrad.linsolve.base import Matvec, Preconditioner, bad_product
from hypergrad.linsolve.krylov import Cycle, Krylov, norm
from hypergrad.validation import require_instance


@dataclass(frozen=True, kw_only=True)
class CG(Krylov):
    """Conjugate gradient, for symmetric positive definite A.

    Exact after n products in exact arithmetic; the error shrinks by (√κ − 1)/(√κ + 1) per product, where κ is the
    condition number of A, or of M⁻¹A with a preconditioner M. The residual is that of A x = b either way.

    Attributes:
        max_iter: most iterations, each of one product with A, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
        preconditioner: makes M ≈ A; None is M = I.

    Source: Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).
    """

    preconditioner: Preconditioner | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preconditioner is not None:
            require_instance(self, "preconditioner", Preconditioner)

    def prepare(self, matvec: Matvec, like: Tensor) -> tuple[Matvec | None, int]:
        return (None, 0) if self.preconditioner is None else self.preconditioner.prepare(matvec, like)

    def cycle(self, matvec: Matvec, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        x = torch.zeros_like(r)
        z = r if inverse is None else inverse(r)
        p = z.clone()
        rz, residual = _squares(r, z, 0)
        count = 0
        while residual > tol and count < max_iter:
            Ap = matvec(p)
            alpha = rz / _curvature(p, Ap, count)
            count += 1
            x.add_(p, alpha=alpha)
            r.sub_(Ap, alpha=alpha)
            z = r if inverse is None else inverse(r)
            previous = rz
            rz, residual = _squares(r, z, count)
            p.mul_(rz / previous).add_(z)
        return Cycle(x, residual, count)


def _squares(r: Tensor, z: Tensor, products: int) -> tuple[float, float]:
    """RᵀM⁻¹r and ‖r‖.

    Raises:
        NonFiniteError: if they are NaN or infinite.
    """
    rz = torch.dot(r, z).item()
    if not rz < float("inf"):
        raise NonFiniteError(bad_product(products))
    return rz, rz**0.5 if z is r else norm(r, products)


def _curvature(p: Tensor, Ap: Tensor, step: int) -> float:
    """The curvature pᵀAp, which must be positive.

    Raises:
        NonFiniteError: if it is NaN or infinite.
        IndefiniteError: if it is not positive.
    """
    value = torch.dot(p, Ap).item()
    if not abs(value) < float("inf"):
        raise NonFiniteError(bad_product(step + 1))
    if value <= 0:
        curvature = value / torch.dot(p, p).item()
        raise IndefiniteError(
            f"CG needs a positive definite matrix, but step {step} met curvature pᵀAp/pᵀp = {curvature:.2e}. Solve the "
            f"inner problem further, or add damping larger than {-curvature:.2e}."
        )
    return value
