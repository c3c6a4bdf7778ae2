"""A low-rank approximation, as a solver and as a preconditioner."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.length import length
from hypergrad.core.operator import Matvec, Operator, columns_of
from hypergrad.core.status import Status
from hypergrad.core.validation import require_int, require_real
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Preconditioner, SolveCost, bad_product
from hypergrad.linsolve.krylov import norm
from hypergrad.linsolve.low_rank import LowRank

_SMALL = 2**16
"""Most numbers in a basis that is kept for the next call: half a megabyte. A judgement."""


@dataclass(frozen=True, kw_only=True)
class Nystrom(LinearSolver, Preconditioner):
    """A ≈ U Λ Uᵀ from `rank` products with random orthonormal vectors, for symmetric positive semidefinite A.

    As a solver, x = (U Λ Uᵀ + ρ I)⁻¹ b by the Woodbury identity, without iterations. It is right only if the spectrum
    of A beyond its `rank` largest eigenvalues is flat at ρ; one more product gives the residual. As a preconditioner of
    `CG`, M = U (Λ + ρ) Uᵀ / (λ_rank + ρ) + (I − U Uᵀ), which removes the large eigenvalues from the condition number;
    the limit of CG stays exact.

    Attributes:
        rank: products to spend and columns to keep, ≥ 1; at most n are used.
        rho: ρ, the curvature assumed outside the span of U, in units of A; None means the smallest eigenvalue found for
            the solver, and 0 for the preconditioner.
        tol: the largest residual that the solver calls converged (dimensionless), ≥ 0.

    Source: Hataya & Yamada, "Nyström method for accurate and scalable implicit differentiation", AISTATS (2023);
    Frangella, Tropp & Udell, "Randomized Nyström preconditioning", SIAM J. Matrix Anal. Appl. (2023).
    """

    rank: int = 20
    rho: float | None = None
    tol: float = 1e-6

    def __post_init__(self) -> None:
        require_int(self, "rank", least=1)
        require_real(self, "tol", least=0)
        if self.rho is not None:
            require_real(self, "rho", above=0)

    def cost(self, n: int) -> SolveCost:
        return SolveCost(1, self.preparation(n).blocks, 3 * min(self.rank, n))

    def preparation(self, n: int) -> SolveCost:
        return SolveCost(0, (min(self.rank, n),), min(self.rank, n))

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        U, eigenvalues = self._approximate(A, b)
        rho = eigenvalues[-1].item() if self.rho is None else self.rho
        along = U.T @ b
        x = U @ (along / (eigenvalues + rho if self.rho is not None else eigenvalues)) + (b - U @ along) / rho
        products = U.shape[1] + 1
        residual = norm(b - A(x), products)
        return LinearSolution(x, residual, products, Status.CONVERGED if residual <= self.tol else Status.MAX_ITER)

    def prepare(self, A: Operator, like: Tensor) -> tuple[LowRank, int]:
        U, eigenvalues = self._approximate(A, like)
        rho = self.rho or 0.0
        shrink = (eigenvalues[-1] + rho) / (eigenvalues + rho) - 1
        return LowRank(U, shrink), U.shape[1]

    def _approximate(self, A: Operator, like: Tensor) -> tuple[Tensor, Tensor]:
        """U, shape (n, k), and the eigenvalues of the approximation, from the largest, all > 0.

        Raises:
            NonFiniteError: if a product is NaN or infinite.
            IndefiniteError: if A has a direction of negative curvature, or none of positive curvature, in the span.
        """
        basis = _basis(like.numel(), self.rank).to(like)
        Y = A(basis) if A.compile is None else A.compile(_products)(basis)[0]
        if not Y.isfinite().all():
            raise NonFiniteError(bad_product(int((~Y.isfinite()).any(0).nonzero()[0]) + 1))
        # A small shift keeps rounding from making the factorisation of a semidefinite core fail.
        shift = torch.finfo(like.dtype).eps * length(Y)
        Y = Y + shift * basis
        half = torch.linalg.solve_triangular(_cholesky(basis.T @ Y, shift), Y.T, upper=False).T
        U, root, _ = torch.linalg.svd(half, full_matrices=False)
        eigenvalues = root.square() - shift
        keep = eigenvalues > 10 * shift
        if not keep.any():
            raise IndefiniteError(
                "The Nyström approximation needs a positive definite matrix, but A is zero. Add damping."
            )
        return U[:, keep], eigenvalues[keep]


def _basis(n: int, rank: int) -> Tensor:
    """Random orthonormal vectors, the same at every call."""
    return _small_basis(n, rank) if n * rank <= _SMALL else _small_basis.__wrapped__(n, rank)


@lru_cache(maxsize=4)
def _small_basis(n: int, rank: int) -> Tensor:
    random = torch.randn(n, min(rank, n), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(random).Q


def _products(product: Matvec, V: Tensor) -> tuple[Tensor]:
    """A V for a compiled A."""
    return (columns_of(product)(V),)


def _cholesky(core: Tensor, shift: float) -> Tensor:
    """The Cholesky factor of the symmetric part of a matrix.

    Raises:
        IndefiniteError: if it is not positive definite.
    """
    core = (core + core.T) / 2
    factor, failed = torch.linalg.cholesky_ex(core)
    if failed:
        least = torch.linalg.eigvalsh(core)[0].item()
        raise IndefiniteError(
            f"The Nyström approximation needs a positive definite matrix, but met curvature {least:.2e}. Solve the "
            f"inner problem further, or add damping larger than {max(0.0 - least, shift):.2e}."
        )
    return factor
