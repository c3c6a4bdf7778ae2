"""What the Krylov solvers share: cycles on the true residual, so that the residual they claim is there."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.errors import NonFiniteError
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Matvec, bad_product
from hypergrad.validation import require_int, require_real


@dataclass(frozen=True)
class Cycle:
    """What one cycle of iterations on A d = r came to.

    Attributes:
        d: the correction, shape (n,).
        residual: what the recursion believes ‖r − A d‖ to be.
        num_matvecs: products spent, one per iteration.
        is_least: whether no d seems to have a smaller residual, because A is singular and r not in its range.
    """

    d: Tensor
    residual: float
    num_matvecs: int
    is_least: bool = False


@dataclass(frozen=True, kw_only=True)
class Krylov(LinearSolver):
    """Iterations that each spend one product, judged by their recursive residual until it claims convergence.

    A recursive residual drifts away from the true one, so convergence is claimed only after one more product has shown
    it; where that product disagrees, the iteration starts again from the true residual.

    Attributes:
        max_iter: most iterations, each of one product with A, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
    """

    max_iter: int = 100
    tol: float = 1e-6

    def __post_init__(self) -> None:
        require_int(self, "max_iter", least=1)
        require_real(self, "tol", least=0)

    def prepare(self, matvec: Matvec, like: Tensor) -> tuple[Matvec | None, int]:
        """What every cycle shares: M⁻¹ where there is a preconditioner, and the products with A that it took."""
        return None, 0

    @abstractmethod
    def cycle(self, matvec: Matvec, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        """Iterate on A d = r from d = 0 until ‖r − A d‖ ≤ tol (absolute) or `max_iter` products; r may be changed."""

    def solve_unit(self, matvec: Matvec, b: Tensor, x0: Tensor | None) -> LinearSolution:
        if x0 is None:
            x, r, products = torch.zeros_like(b), b.clone(), 0
        else:
            x, products = x0.clone(), 1
            r = b - matvec(x)
        residual, spent = norm(r, products), 0
        inverse, extra = self.prepare(matvec, b) if residual > self.tol else (None, 0)
        products += extra
        while True:
            if residual <= self.tol:
                return LinearSolution(x, residual, products, "converged")
            if spent == self.max_iter:
                return LinearSolution(x, residual, products, "max_iter")
            done = self.cycle(matvec, inverse, r, self.tol, self.max_iter - spent)
            x.add_(done.d)
            spent, products = spent + done.num_matvecs, products + done.num_matvecs
            if done.residual > self.tol and spent == self.max_iter:
                return LinearSolution(x, done.residual, products, "max_iter")
            before, claimed = residual, done.residual <= self.tol
            r = b - matvec(x)
            products += 1
            residual = norm(r, products)
            # A cycle that believed it was at its end, and whose end another cycle hardly moves, has met the limit of
            # rounding or of the range of A.
            if residual > self.tol and residual > before * (0.5 if claimed or done.is_least else 1 - 1e-6):
                status = "inconsistent" if done.is_least else "stagnated"
                return LinearSolution(x, residual, products, status)


def norm(r: Tensor, products: int) -> float:
    """‖r‖ after `products` products.

    Raises:
        NonFiniteError: if it is NaN or infinite.
    """
    value = torch.linalg.vector_norm(r).item()
    if not value < float("inf"):
        raise NonFiniteError(bad_product(products))
    return value
