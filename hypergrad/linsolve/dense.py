"""A dense factorisation of A."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.errors import IndefiniteError, NonFiniteError
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Matvec, bad_product
from hypergrad.validation import require_int


@dataclass(frozen=True, kw_only=True)
class Dense(LinearSolver):
    """A factorisation of A, built from n products with the unit vectors: Cholesky, or LU where `definite` is off.

    Exact up to rounding, in n products, 8n² bytes and n³/3 operations: the reference for small problems.

    Attributes:
        max_size: largest n to accept, ≥ 1; a larger system is refused before any memory is taken.
        definite: refuse an A that is not symmetric positive definite; where it is off, any nonsingular A is solved,
            such as the Hessian at a saddle, whose solution is then no derivative of an argmin.

    Raises:
        ValueError: (from `solve`) if n exceeds `max_size`, or A is not symmetric.
    """

    max_size: int = 4000
    definite: bool = True

    def __post_init__(self) -> None:
        require_int(self, "max_size", least=1)

    def solve_unit(self, matvec: Matvec, b: Tensor, x0: Tensor | None) -> LinearSolution:
        n = b.numel()
        if n > self.max_size:
            raise ValueError(
                f"A dense factorisation of {n} parameters would take {n * n * b.element_size() / 1e9:.1f} GB and {n} "
                f"products, and max_size is {self.max_size}. Use CG, or raise max_size."
            )
        A = _matrix(matvec, b)
        if not self.definite:
            return _by_lu(A, b)
        A = _symmetric(A)
        factor, failed = torch.linalg.cholesky_ex(A)
        if failed:
            least = torch.linalg.eigvalsh(A)[0].item()
            raise IndefiniteError(
                f"Cholesky needs a positive definite matrix, but the smallest eigenvalue is {least:.2e}. Solve the "
                f"inner problem further, or add damping larger than {max(-least, 0.0):.2e}."
            )
        x = torch.cholesky_solve(b[:, None], factor)[:, 0]
        residual = torch.linalg.vector_norm(b - A @ x).item()
        return LinearSolution(x=x, residual=residual, num_matvecs=n, status="converged")


def _matrix(matvec: Matvec, b: Tensor) -> Tensor:
    unit_vectors = torch.eye(b.numel(), dtype=b.dtype, device=b.device)
    A = torch.stack([matvec(e) for e in unit_vectors], dim=1)
    if not A.isfinite().all():
        raise NonFiniteError(bad_product(int((~A.isfinite()).any(0).nonzero()[0]) + 1))
    return A


def _symmetric(A: Tensor) -> Tensor:
    size = torch.linalg.matrix_norm(A).clamp_min(torch.finfo(A.dtype).tiny)
    asymmetry = (torch.linalg.matrix_norm(A - A.T) / size).item()
    if asymmetry > torch.finfo(A.dtype).eps ** 0.5:
        raise ValueError(
            f"Cholesky needs a symmetric matrix, but ‖A − Aᵀ‖/‖A‖ = {asymmetry:.1e}: the optimality condition is not "
            "a gradient. Use GMRES, or Dense with definite=False."
        )
    return (A + A.T) / 2


def _by_lu(A: Tensor, b: Tensor) -> LinearSolution:
    factor, pivots, _ = torch.linalg.lu_factor_ex(A)
    diagonal = factor.diagonal().abs()
    if diagonal.min() <= 10 * torch.finfo(A.dtype).eps * diagonal.max():
        raise IndefiniteError(
            f"The matrix is singular: the pivots of its LU factorisation go from {diagonal.max().item():.1e} down to "
            f"{diagonal.min().item():.1e}. Add damping, or look for a parameter that the inner loss ignores."
        )
    x = torch.linalg.lu_solve(factor, pivots, b[:, None])[:, 0]
    residual = torch.linalg.vector_norm(b - A @ x).item()
    return LinearSolution(x, residual, len(b), "converged")
