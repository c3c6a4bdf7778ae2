"""A low-rank approximation, as a solver and as a preconditioner."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import Operator
from hypergrad.core.status import Status
from hypergrad.core.validation import require_int, require_real
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Preconditioner, bad_product
from hypergrad.linsolve.krylov import norm
from hypergrad.linsolve.low_rank import LowRank


@dataclass(frozen=True, kw_only=True)
class Nystrom(LinearSolver, Preconditioner):
    """A ≈ U Λ Uᵀ from `rank` products with random orthonormal vectors, for symmetric positive semidefinite A.

    As a solver, x = (U Λ Uᵀ + ρ I)⁻¹ b by the Woodbury identity: direct, no iteration, and only as right as the
    spectrum of A beyond its `rank` largest eigenvalues is flat at ρ; one more product says what residual is left. As a
    preconditioner of `CG`, M = U (Λ + ρ) Uᵀ / (λ_rank + ρ) + (I − U Uᵀ), which takes the large eigenvalues out of the
    condition number and leaves the limit of CG exact.

    Attributes:
        rank: products to spend and columns to keep, ≥ 1; at most n are taken.
        rho: ρ, the curvature to assume outside the span of U, in units of A; None takes the smallest eigenvalue found
            for the solver, and 0 for the preconditioner.
        tol: of the solver: the residual from which it calls itself converged (dimensionless), ≥ 0.

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
        n = like.numel()
        generator = torch.Generator().manual_seed(0)
        random = torch.randn(n, min(self.rank, n), generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(random).Q.to(like)
        Y = A(basis)
        if not Y.isfinite().all():
            raise NonFiniteError(bad_product(int((~Y.isfinite()).any(0).nonzero()[0]) + 1))
        # A small shift keeps the factorisation of a semidefinite core from failing by rounding.
        shift = torch.finfo(like.dtype).eps * torch.linalg.matrix_norm(Y).item()
        Y = Y + shift * basis
        core = basis.T @ Y
        factor, failed = torch.linalg.cholesky_ex((core + core.T) / 2)
        if failed:
            least = torch.linalg.eigvalsh((core + core.T) / 2)[0].item()
            raise IndefiniteError(
                f"The Nyström approximation needs a positive definite matrix, but met curvature {least:.2e}. Solve the "
                f"inner problem further, or add damping larger than {max(-least, shift):.2e}."
            )
        half = torch.linalg.solve_triangular(factor, Y.T, upper=False).T
        U, root, _ = torch.linalg.svd(half, full_matrices=False)
        eigenvalues = root.square() - shift
        keep = eigenvalues > 10 * shift
        if not keep.any():
            raise IndefiniteError(
                "The Nyström approximation needs a positive definite matrix, but A is zero. Add damping."
            )
        return U[:, keep], eigenvalues[keep]
