"""The promise of a linear solver: A x = b from products with A, and how well it was solved.

`hypergrad.linsolve` holds the solvers and preconditioners, one per file, and what they share. It imports only from
`core` and `compile`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from hypergrad.core.errors import NonFiniteError
from hypergrad.core.operator import Matvec, Operator
from hypergrad.core.status import Status
from hypergrad.linsolve.window import read


@dataclass(frozen=True)
class LinearSolution:
    """What a linear solver found.

    Attributes:
        x: the approximate solution, shape (n,), or (n, k) for k right-hand sides.
        residual: ‖b − A x‖ / ‖b‖, dimensionless; 0 when b = 0; the largest of several.
        num_matvecs: products with A spent, one for each vector.
        status: "converged", or why the tolerance was not met: "max_iter" (the products, or terms, ran out), "stagnated"
            (rounding errors allow no smaller residual), or "inconsistent" (A is singular and no x has a smaller one).
        remark: what the solver chose, and why; "" where there was nothing to choose.
        condition: κ = λ_max/λ_min, estimated from below; of M⁻¹A with a preconditioner M. NaN where the solver does not
            know it: only `CG` with one right-hand side and `Dense` do.
    """

    x: Tensor
    residual: float
    num_matvecs: int
    status: Status
    remark: str = ""
    condition: float = math.nan

    @property
    def converged(self) -> bool:
        """Whether the residual met the tolerance."""
        return self.status == Status.CONVERGED


@dataclass(frozen=True)
class SolveCost:
    """The most that one solve from zero takes, for one right-hand side and an A whose products are exact.

    Attributes:
        products: with one vector each.
        blocks: the columns of each product with a matrix.
        vectors: of size n that it keeps at a time.
    """

    products: int
    blocks: tuple[int, ...] = ()
    vectors: int = 4

    def __add__(self, other: "SolveCost") -> "SolveCost":
        vectors = self.vectors + other.vectors
        return SolveCost(self.products + other.products, self.blocks + other.blocks, vectors)


class LinearSolver(ABC):
    """Solves A x = b from products with A; A is symmetric positive definite unless the solver says otherwise."""

    takes_columns: ClassVar[bool] = False
    """Whether `solve_unit` solves for several right-hand sides at once, the columns of a matrix."""

    def solve(self, matvec: Matvec, b: Tensor, x0: Tensor | None = None) -> LinearSolution:
        """Solve A x = b; b = 0 gives x = 0 without a product.

        Args:
            matvec: v ↦ A v, or an `Operator`, which knows more about A.
            b: the right-hand side, shape (n,), or several, shape (n, k); it is not changed.
            x0: where to start, shaped as b; zero when None; it is not changed.

        Returns:
            The solution, its relative residual, and the products spent.

        Also raised, by what it calls: NonFiniteError if b, or a product with A, is NaN or infinite; IndefiniteError if
        A is met to be not positive definite; DivergenceError if the iteration grows.
        """
        A = Operator.of(matvec)
        if b.ndim == 1:
            norm = _norms([b])[0]
            if norm == 0:
                return LinearSolution(x=torch.zeros_like(b), residual=0.0, num_matvecs=0, status=Status.CONVERGED)
            found = self.solve_unit(A, b / norm, None if x0 is None else x0 / norm)
            return replace(found, x=found.x * norm)
        if not self.takes_columns:
            return _together([self.solve(A, b[:, i], None if x0 is None else x0[:, i]) for i in range(b.shape[1])])
        norms = torch.tensor(_norms(list(b.T)), dtype=b.dtype, device=b.device)
        x, some = torch.zeros_like(b), norms > 0
        if not some.any():
            return LinearSolution(x=x, residual=0.0, num_matvecs=0, status=Status.CONVERGED)
        start = None if x0 is None else x0[:, some] / norms[some]
        found = self.solve_unit(A, b[:, some] / norms[some], start)
        x[:, some] = found.x * norms[some]
        return replace(found, x=x)

    def inverse(self, matvec: Matvec, like: Tensor) -> Callable[[Tensor], LinearSolution]:
        """The map b ↦ `solve(matvec, b)`; what several solves share, such as a factor, is made once.

        Args:
            matvec: v ↦ A v, or an `Operator`.
            like: a vector of shape (n,) that gives dtype and device.

        Returns:
            A function of right-hand sides of shape (n,) or (n, k).
        """
        return partial(self.solve, matvec)

    def tightened(self, factor: float) -> "LinearSolver":
        """The same solver with its tolerance multiplied by `factor` > 0; itself if it has none."""
        if factor == 1 or not hasattr(self, "tol"):
            return self
        return replace(cast(Any, self), tol=factor * cast(Any, self).tol)

    def cost(self, n: int) -> SolveCost | None:
        """The most that a solve for n unknowns takes; None, the default, if it is not known."""
        return None

    @abstractmethod
    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        """Solve A x = b for ‖b‖ = 1, so that no square under- or overflows.

        Args:
            A: as for `solve`.
            b: shape (n,), or (n, k) where `takes_columns`; it may be overwritten.
            x0: where to start, shaped as b; None starts at 0. It may be overwritten.
        """


class Preconditioner(ABC):
    """Makes M ≈ A, so that M⁻¹A has a smaller condition number than A, which is symmetric positive definite."""

    def preparation(self, n: int) -> SolveCost | None:
        """What `prepare` takes for n unknowns; None, the default, if it is not known."""
        return None

    @abstractmethod
    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec, int]:
        """Make M.

        Args:
            A: symmetric positive definite.
            like: a vector of shape (n,) that gives size, dtype and device.

        Returns:
            v ↦ M⁻¹ v with a symmetric positive definite M, and the products with A spent on it.

        Raises:
            NonFiniteError: if a product is NaN or infinite.
            IndefiniteError: if A turns out not to be positive definite.
        """


def _together(found: list[LinearSolution]) -> LinearSolution:
    """The solutions of several systems as one, with the residual and the status of the worst."""
    worst = max(found, key=lambda one: (not one.converged, one.residual))
    x = torch.stack([one.x for one in found], dim=1)
    return replace(worst, x=x, num_matvecs=sum(one.num_matvecs for one in found))


def _norms(vectors: Sequence[Tensor]) -> list[float]:
    """‖b‖ of each, also where its square under- or overflows.

    Also raised, by what it calls: NonFiniteError if one is not finite.
    """
    if not vectors or vectors[0].numel() == 0:
        return [0.0] * len(vectors)
    limits, norms = torch.finfo(vectors[0].dtype), read([torch.linalg.vector_norm(b) for b in vectors])
    low, high = limits.tiny**0.5 / limits.eps, limits.max**0.5 * limits.eps
    return [norm if low < norm < high else _scaled_norm(b) for b, norm in zip(vectors, norms, strict=True)]


def _scaled_norm(b: Tensor) -> float:
    """‖b‖ without squares of large or small numbers.

    Raises:
        NonFiniteError: if b is not finite.
    """
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
    """The message about product number `count` (from 1), which is NaN or infinite."""
    return (
        f"Product {count} with A is NaN or infinite. Look for NaN in the train data, or for an operation in "
        "the inner loss whose second derivative is infinite at these parameters, such as a square root at 0."
    )


def negative_curvature(value: float, step: int) -> str:
    """The message about a curvature pᵀAp/pᵀp = `value` ≤ 0 at iteration `step` of conjugate gradient."""
    return (
        f"CG needs a positive definite matrix, but step {step} met curvature pᵀAp/pᵀp = {value:.2e}, and a later one "
        f"may meet less. Solve the inner problem further, or add damping larger than {0.0 - value:.2e}; "
        "begin with ten times as much."
    )
