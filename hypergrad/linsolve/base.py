"""The promise of a linear solver: A x = b from products with A, and a word on how well."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from hypergrad.errors import NonFiniteError

Matvec = Callable[[Tensor], Tensor]
"""The linear map v ↦ A v on vectors of shape (n,)."""


@dataclass(frozen=True)
class LinearSolution:
    """What a linear solver found.

    Attributes:
        x: the approximate solution, shape (n,).
        residual: ‖b − A x‖ / ‖b‖, dimensionless; 0 when b = 0.
        num_matvecs: products with A spent.
        status: "converged", or why the tolerance was not met: "max_iter" (the products, or terms, ran out), "stagnated"
            (rounding errors allow no smaller residual), or "inconsistent" (A is singular and no x has a smaller one).
    """

    x: Tensor
    residual: float
    num_matvecs: int
    status: str

    @property
    def converged(self) -> bool:
        """Whether the residual met the tolerance."""
        return self.status == "converged"


class LinearSolver(ABC):
    """How A x = b is solved from products with A, which is symmetric positive definite unless the solver says else."""

    def solve(self, matvec: Matvec, b: Tensor, x0: Tensor | None = None) -> LinearSolution:
        """Solve A x = b; b = 0 gives x = 0 without a product.

        Args:
            matvec: v ↦ A v.
            b: the right-hand side, shape (n,); it is not changed.
            x0: where to start, shape (n,); zero when None; it is not changed.

        Returns:
            The solution, its relative residual, and the products it took.

        Raises:
            NonFiniteError: if b, or a product with A, is NaN or infinite.
            IndefiniteError: if A is met to be not positive definite.
            DivergenceError: if the iteration grows.
        """
        norm = _norm(b)
        if norm == 0:
            return LinearSolution(x=torch.zeros_like(b), residual=0.0, num_matvecs=0, status="converged")
        found = self.solve_unit(matvec, b / norm, None if x0 is None else x0 / norm)
        return LinearSolution(found.x * norm, found.residual, found.num_matvecs, found.status)

    def tightened(self, factor: float) -> "LinearSolver":
        """The same solver with `factor` times its tolerance, > 0; itself where it has none."""
        if factor == 1 or not hasattr(self, "tol"):
            return self
        return replace(cast(Any, self), tol=factor * cast(Any, self).tol)

    @abstractmethod
    def solve_unit(self, matvec: Matvec, b: Tensor, x0: Tensor | None) -> LinearSolution:
        """Solve A x = b where ‖b‖ = 1, so that no square under- or overflows; b and x0 may be overwritten."""


class Preconditioner(ABC):
    """How M ≈ A is made, with which M⁻¹A has a smaller condition number than a symmetric positive definite A."""

    @abstractmethod
    def prepare(self, matvec: Matvec, like: Tensor) -> tuple[Matvec, int]:
        """Make M.

        Args:
            matvec: v ↦ A v.
            like: a vector of shape (n,) that gives size, dtype and device.

        Returns:
            v ↦ M⁻¹ v with a symmetric positive definite M, and the products with A that it took.

        Raises:
            NonFiniteError: if a product is NaN or infinite.
            IndefiniteError: if A is met to be not positive definite.
        """


def _norm(b: Tensor) -> float:
    """‖b‖, also where its square is no floating-point number.

    Raises:
        NonFiniteError: if b is not finite.
    """
    limits = torch.finfo(b.dtype)
    norm = torch.linalg.vector_norm(b).item()
    if limits.tiny**0.5 / limits.eps < norm < limits.max**0.5 * limits.eps:
        return norm
    largest = b.abs().max().item()
    if largest == 0:
        return 0.0
    if not largest < float("inf"):
        count = int((~b.isfinite()).sum())
        raise NonFiniteError(
            f"The right-hand side of the linear system (∂f/∂w for a hypergradient) holds {count} of {b.numel()} values "
            "that are NaN or infinite; look for NaN in the dev data, or for parameters that blew up."
        )
    return largest * torch.linalg.vector_norm(b / largest).item()


def bad_product(count: int) -> str:
    """What to say of product number `count` (from 1) that came back NaN or infinite."""
    return (
        f"Product {count} with A came back NaN or infinite. Look for NaN in the train data, or for an operation in "
        "the inner loss whose second derivative is infinite at these parameters, such as a square root at 0."
    )
