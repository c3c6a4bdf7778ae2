"""Conjugate gradient."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import Matvec, Operator
from hypergrad.core.validation import require_instance
from hypergrad.linsolve.base import LinearSolution, Preconditioner, bad_product, negative_curvature
from hypergrad.linsolve.block import block_cycle
from hypergrad.linsolve.fused import Iterate, run_fused
from hypergrad.linsolve.inexact_cycle import inexact_cycle
from hypergrad.linsolve.krylov import Cycle, Krylov, norm
from hypergrad.linsolve.lanczos import Lanczos
from hypergrad.linsolve.low_rank import LowRank

_CHECK_EVERY = 10
"""Iterations between estimates of rounding. A judgement: each takes three norms, little beside 10 products."""


@dataclass(frozen=True, kw_only=True)
class CG(Krylov):
    """Conjugate gradient, for symmetric positive definite A.

    Exact after n products in exact arithmetic; the error shrinks by (√κ − 1)/(√κ + 1) per product, where κ is the
    condition number of A, or of M⁻¹A with a preconditioner M. The residual is always that of A x = b. Several
    right-hand sides are solved together, each in the Krylov space of all of them.

    Attributes:
        max_iter: most iterations, each with one product with A per right-hand side, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
        preconditioner: makes M ≈ A; None means M = I.

    Source: Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).
    """

    takes_columns: ClassVar[bool] = True
    preconditioner: Preconditioner | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preconditioner is not None:
            require_instance(self, "preconditioner", Preconditioner)

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec | None, int]:
        return (None, 0) if self.preconditioner is None else self.preconditioner.prepare(A, like)

    def inverse(self, matvec: Matvec, like: Tensor) -> Callable[[Tensor], LinearSolution]:
        A = Operator.of(matvec)
        prepared, _ = self.prepare(A, like)
        if prepared is None:
            return super().inverse(A, like)
        return partial(replace(self, preconditioner=Prepared(prepared)).solve, A)

    def cycle(self, A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        if r.ndim == 2:
            return block_cycle(A, inverse, r, tol, max_iter)
        if A.inaccuracy is not None and A.compile is None:
            return inexact_cycle(A, inverse, r, tol, max_iter)
        matvec = A.matvec
        x = torch.zeros_like(r)
        z = r if inverse is None else inverse(r)
        p = z.clone()
        rz, residual = _squares(r, z, 0)
        count, lanczos = 0, Lanczos()
        if A.compile is not None and (inverse is None or isinstance(inverse, LowRank)):
            start = Iterate(x, r, p, rz, residual)
            (x, r, p, rz, residual), count, is_lost = run_fused(A, inverse, start, tol, max_iter, lanczos)
            if is_lost:
                return Cycle(x, residual, count, ends=lanczos.ends())
        while residual > tol and count < max_iter:
            Ap = matvec(p)
            curvature = _curvature(p, Ap, count)
            alpha = rz / curvature
            count += 1
            x.add_(p, alpha=alpha)
            r.sub_(Ap, alpha=alpha)
            z = r if inverse is None else inverse(r)
            previous = rz
            rz, residual = _squares(r, z, count, Ap)
            lanczos.add(previous, curvature, rz)
            if A.is_rounded and count % _CHECK_EVERY == 0 and _rounding(x, p, Ap) > max(tol, residual):
                break  # further progress is lost to rounding: the true residual has to be computed
            p.mul_(rz / previous).add_(z)
        return Cycle(x, residual, count, ends=lanczos.ends())


@dataclass(frozen=True)
class Prepared(Preconditioner):
    """A preconditioner that was made before."""

    product: Matvec

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec, int]:
        return self.product, 0


def _rounding(x: Tensor, p: Tensor, Ap: Tensor) -> float:
    """The true residual that rounding leaves, ε ‖A‖ ‖x‖, with ‖A‖ estimated from below."""
    norms = [torch.linalg.vector_norm(v).item() for v in (x, p, Ap)]
    return torch.finfo(x.dtype).eps * norms[0] * norms[2] / norms[1]


def _squares(r: Tensor, z: Tensor, products: int, Ap: Tensor | None = None) -> tuple[float, float]:
    """The two measures of a residual: rᵀM⁻¹r and ‖r‖.

    Raises:
        NonFiniteError: if they are NaN or infinite.
        IndefiniteError: if they are but the last product is finite: then the step was too long because of no curvature.
    """
    rz = torch.dot(r, z).item()
    if not rz < float("inf"):
        if Ap is not None and Ap.isfinite().all():
            raise IndefiniteError(negative_curvature(0.0, products))
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
        raise IndefiniteError(negative_curvature(value / torch.dot(p, p).item(), step))
    return value
