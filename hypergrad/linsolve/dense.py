"""A dense factorisation of A."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, log2
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import Matvec, Operator
from hypergrad.core.status import Status
from hypergrad.core.validation import require_int, require_real
from hypergrad.linsolve.base import LinearSolution, LinearSolver, SolveCost, bad_product
from hypergrad.linsolve.krylov import norm
from hypergrad.linsolve.spectrum import largest_eigenvalue

_MARGIN = 10.0
"""The error of all n products together over the largest of the measured ones. A judgement."""


@dataclass(frozen=True, kw_only=True)
class Dense(LinearSolver):
    """A factorisation of A, built from n products with the unit vectors: Cholesky, or LU where A is not definite.

    Exact up to rounding, with n products, 8n² bytes and n³/3 operations for any number of right-hand sides. It is the
    reference for small problems. For an ill-conditioned A rounding may leave a large residual. So one more product
    measures it. If it exceeds the tolerance, steps of iterative refinement, a product each, reduce it while they can.
    If they cannot reach the tolerance, the status is "stagnated".

    Attributes:
        tol: a solution with ‖b − A x‖ ≤ tol ‖b‖ is called converged (dimensionless), ≥ 0; values below √ε of the dtype
            count as √ε.
        max_size: largest n to accept, ≥ 1; a larger system is refused before any memory is allocated.
        definite: refuse an A that is not symmetric positive definite. If false, any nonsingular A is solved, such as
            the Hessian at a saddle; the solution is then not the derivative of an argmin.
        chunk: products to form at once, ≥ 1; each needs the memory of a backward pass.

    Raises:
        ValueError: (from `solve`) if n exceeds `max_size`, or A is not symmetric.

    Examples:
        >>> A, b = torch.tensor([[2.0, 1.0], [1.0, -3.0]]), torch.tensor([3.0, -5.5])
        >>> hg.Dense(definite=False).solve(lambda v: A @ v, b).x
        tensor([0.5000, 2.0000])
    """

    takes_columns: ClassVar[bool] = True
    max_size: int = 4000
    definite: bool = True
    chunk: int = 64
    tol: float = 1e-6

    def __post_init__(self) -> None:
        require_int(self, "max_size", least=1)
        require_int(self, "chunk", least=1)
        require_real(self, "tol", least=0)

    def cost(self, n: int) -> SolveCost:
        blocks = tuple(min(self.chunk, n - first) for first in range(0, n, self.chunk))
        # Each refinement halves the residual at least, or is the last one; √ε of the finest dtype is 1e-8.
        return SolveCost(1 + ceil(-log2(min(max(self.tol, 1e-8), 1.0))), blocks, 2 * n)

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        factor = self._factorize(A, b)
        return replace(factor.solve_unit(A, b, x0), condition=factor.condition())

    def inverse(self, matvec: Matvec, like: Tensor) -> Callable[[Tensor], LinearSolution]:
        A = Operator.of(matvec)
        return partial(self._factorize(A, like).solve, A)

    def _factorize(self, A: Operator, b: Tensor) -> "Factor":
        n = len(b)
        if n > self.max_size:
            raise ValueError(
                f"A dense factorisation of {n} parameters needs {n * n * b.element_size() / 1e9:.1f} GB and {n} "
                f"products, and max_size is {self.max_size}. Use CG, or raise max_size."
            )
        H = self._matrix(A, b)
        asymmetry = _asymmetry(H)
        if asymmetry > _allowed_asymmetry(A, H):
            if self.definite:
                raise ValueError(
                    f"Cholesky needs a symmetric matrix, but ‖A − Aᵀ‖/‖A‖ = {asymmetry:.1e}: the optimality condition "
                    "is not a gradient. Use GMRES, or Dense with definite=False."
                )
            return Factor(H, *_lu(H), self.tol, f"LU, because A is not symmetric (‖A − Aᵀ‖/‖A‖ = {asymmetry:.1e})")
        return self._symmetric((H + H.T) / 2)

    def _matrix(self, A: Operator, b: Tensor) -> Tensor:
        n = len(b)
        H = b.new_empty(n, n)
        for first in range(0, n, self.chunk):
            units = torch.zeros(n, min(self.chunk, n - first), dtype=b.dtype, device=b.device)
            units[first : first + self.chunk].fill_diagonal_(1)
            H[:, first : first + self.chunk] = A(units)
        if not H.isfinite().all():
            raise NonFiniteError(bad_product(int((~H.isfinite()).any(0).nonzero()[0]) + 1))
        return H

    def _symmetric(self, H: Tensor) -> "Factor":
        factor, failed = torch.linalg.cholesky_ex(H)
        if not failed:
            return Factor(H, factor, None, self.tol, "Cholesky")
        least = torch.linalg.eigvalsh(H)[0].item()
        if self.definite:
            raise IndefiniteError(
                f"Cholesky needs a positive definite matrix, but the smallest eigenvalue is {least:.2e}. Solve the "
                f"inner problem further, or add damping larger than {max(0.0 - least, 0.0):.2e}."
            )
        return Factor(H, *_lu(H), self.tol, f"LU, because Cholesky failed: the smallest eigenvalue is {least:.2e}")


@dataclass(frozen=True)
class Factor(LinearSolver):
    """A x = b by a factorisation of A that was made before.

    Attributes:
        matrix: A, shape (n, n).
        factor: the Cholesky factor, or both LU factors in one matrix.
        pivots: of LU; None for Cholesky.
        tol: see `Dense`.
        remark: which factorisation, and why.
    """

    takes_columns: ClassVar[bool] = True
    matrix: Tensor
    factor: Tensor
    pivots: Tensor | None
    tol: float
    remark: str

    def apply(self, columns: Tensor) -> Tensor:
        """A⁻¹ times the columns of a matrix of shape (n, k)."""
        if self.pivots is None:
            return torch.cholesky_solve(columns, self.factor)
        return torch.linalg.lu_solve(self.factor, self.pivots, columns)

    def condition(self) -> float:
        """|λ|_max/|λ|_min, estimated from below by a few products with the matrix and its inverse."""
        like = self.matrix[0]
        inverse = largest_eigenvalue(lambda v: self.apply(v[:, None])[:, 0], like)
        return largest_eigenvalue(self.matrix.matmul, like) * inverse

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        tol, width = max(self.tol, torch.finfo(b.dtype).eps ** 0.5), 1 if b.ndim == 1 else b.shape[1]
        x = self._columns(b)
        r, products = b - A(x), len(b) + width
        residual = norm(r, products)
        while residual > tol:
            refined = x + self._columns(r)
            r, before, products = b - A(refined), residual, products + width
            residual = norm(r, products)
            if not residual < before / 2:
                residual = min(residual, before)
                x = refined if residual < before else x
                break
            x = refined
        status = Status.CONVERGED if residual <= tol else Status.STAGNATED
        return LinearSolution(x, residual, products, status, self.remark)

    def _columns(self, b: Tensor) -> Tensor:
        return self.apply(b if b.ndim == 2 else b[:, None]).view_as(b)


def _allowed_asymmetry(A: Operator, H: Tensor) -> float:
    """‖A − Aᵀ‖/‖A‖ up to which A counts as symmetric, because its products are no more accurate."""
    least = torch.finfo(H.dtype).eps ** 0.5
    if A.inaccuracy is None or _asymmetry(H) <= least:
        return least
    return max(least, _MARGIN * A.inaccuracy())


def _asymmetry(H: Tensor) -> float:
    size = torch.linalg.matrix_norm(H).clamp_min(torch.finfo(H.dtype).tiny)
    return (torch.linalg.matrix_norm(H - H.T) / size).item()


def _lu(H: Tensor) -> tuple[Tensor, Tensor]:
    factor, pivots, _ = torch.linalg.lu_factor_ex(H)
    diagonal = factor.diagonal().abs()
    if diagonal.min() <= 10 * torch.finfo(H.dtype).eps * diagonal.max():
        raise IndefiniteError(
            f"The matrix is singular: the pivots of its LU factorisation fall from {diagonal.max().item():.1e} to "
            f"{diagonal.min().item():.1e}. Add damping, or look for a parameter that the inner loss ignores."
        )
    return factor, pivots
