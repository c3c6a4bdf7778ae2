"""Conjugate gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import Matvec, Operator
from hypergrad.core.validation import require_instance
from hypergrad.linsolve.base import LinearSolution, Preconditioner, SolveCost, bad_product, negative_curvature
from hypergrad.linsolve.block import block_cycle
from hypergrad.linsolve.fused import Iterate, run_fused
from hypergrad.linsolve.inexact_cycle import inexact_cycle
from hypergrad.linsolve.krylov import Cycle, Krylov
from hypergrad.linsolve.lanczos import Lanczos
from hypergrad.linsolve.low_rank import LowRank
from hypergrad.linsolve.window import read, window_size

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

    Examples:
        >>> A, b = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([3.0, 6.5])
        >>> found = hg.CG(tol=1e-6).solve(lambda v: A @ v, b)
        >>> found.x
        tensor([0.5000, 2.0000])
        >>> found.converged
        True

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

    def cost(self, n: int) -> SolveCost | None:
        iterations = super().cost(n)
        prepared = SolveCost(0, vectors=0) if self.preconditioner is None else self.preconditioner.preparation(n)
        return None if prepared is None or iterations is None else prepared + iterations

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
        x = torch.zeros_like(r)
        z = r if inverse is None else inverse(r)
        p, square = z.clone(), torch.dot(r, z)
        rz, residual = _sizes(A, p, read(_measured(square, r, z)), 0)
        count, lanczos = 0, Lanczos()
        if A.compile is not None and (inverse is None or isinstance(inverse, LowRank)):
            start = Iterate(x, r, p, rz, residual)
            end, count = run_fused(A, inverse, start, tol, max_iter, lanczos)
            return Cycle(end.x, end.residual, count, ends=lanczos.ends())
        size = window_size(r)
        while residual > tol and count < max_iter:
            steps = min(size, max_iter - count, _CHECK_EVERY - count % _CHECK_EVERY)
            directions, met, p, square, Ap = _further(A.matvec, inverse, r, p, square, steps)
            width, numbers = len(met) // steps, read(met)
            for step, along in enumerate(directions):
                curvature, *measured = numbers[step * width : (step + 1) * width]
                _require_positive(curvature, along, count, rz)
                count += 1
                x.add_(along, alpha=rz / curvature)
                previous = rz
                rz, residual = _sizes(A, along, measured, count)
                lanczos.add(previous, curvature, rz)
                if residual <= tol:
                    return Cycle(x, residual, count, surplus=steps - step - 1, ends=lanczos.ends())
            if A.is_rounded and count % _CHECK_EVERY == 0 and _rounding(x, directions[-1], Ap) > max(tol, residual):
                break  # further progress is lost to rounding: the true residual has to be computed
        return Cycle(x, residual, count, ends=lanczos.ends())


def _further(
    matvec: Matvec, inverse: Matvec | None, r: Tensor, p: Tensor, square: Tensor, steps: int
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor, Tensor]:
    """Some iterations whose numbers nobody looked at yet; r is changed, and x, which they do not need, follows later.

    Returns:
        The direction p of each, what was measured in each (pᵀAp, and `_measured`), the next direction, rᵀM⁻¹r, and
        the last product A p.
    """
    directions, met, Ap = [], [], p
    for _ in range(steps):
        directions.append(p)
        Ap = matvec(p)
        curvature = torch.dot(p, Ap)
        r.addcmul_(Ap, square / curvature, value=-1)
        z = r if inverse is None else inverse(r)
        before, square = square, torch.dot(r, z)
        met += (curvature, *_measured(square, r, z))
        p = torch.mul(p, square / before).add_(z)
    return directions, met, p, square, Ap


def _measured(square: Tensor, r: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """What tells how large a residual is: rᵀM⁻¹r, which is ‖r‖² if M = I, and ‖r‖ otherwise."""
    return (square,) if z is r else (square, torch.linalg.vector_norm(r))


@dataclass(frozen=True)
class Prepared(Preconditioner):
    """A preconditioner that was made before."""

    product: Matvec

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec, int]:
        return self.product, 0


def _rounding(x: Tensor, p: Tensor, Ap: Tensor) -> float:
    """The true residual that rounding leaves, ε ‖A‖ ‖x‖, with ‖A‖ estimated from below."""
    norms = read([torch.linalg.vector_norm(v) for v in (x, p, Ap)])
    return torch.finfo(x.dtype).eps * norms[0] * norms[2] / norms[1]


def _sizes(A: Operator, p: Tensor, measured: Sequence[float], products: int) -> tuple[float, float]:
    """The two measures of a residual, rᵀM⁻¹r and ‖r‖, after a step along p.

    Raises:
        NonFiniteError: if they are NaN or infinite.
        IndefiniteError: if they are but the last product is finite: then the step was too long because of no curvature.
    """
    rz, *size = measured
    if not rz < float("inf"):
        if products > 0 and A.matvec(p).isfinite().all():
            raise IndefiniteError(negative_curvature(0.0, products))
        raise NonFiniteError(bad_product(products))
    residual = size[0] if size else rz**0.5
    if not residual < float("inf"):
        raise NonFiniteError(bad_product(products))
    return rz, residual


def _require_positive(curvature: float, p: Tensor, step: int, rz: float) -> None:
    """Require that the curvature pᵀAp is positive, and the length rᵀM⁻¹r/pᵀAp of the step a number of the dtype.

    Raises:
        NonFiniteError: if it is NaN or infinite.
        IndefiniteError: if it is not positive, or the step too long because of no curvature.
    """
    if not abs(curvature) < float("inf"):
        raise NonFiniteError(bad_product(step + 1))
    if curvature <= 0:
        raise IndefiniteError(negative_curvature(curvature / torch.dot(p, p).item(), step))
    if rz / torch.finfo(p.dtype).max >= curvature:
        raise IndefiniteError(negative_curvature(0.0, step))
