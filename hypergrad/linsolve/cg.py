"""Conjugate gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.errors import IndefiniteError, NonFiniteError
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Matvec, bad_product
from hypergrad.validation import require_int, require_real


@dataclass(frozen=True, kw_only=True)
class CG(LinearSolver):
    """Conjugate gradient, for symmetric positive definite A.

    Exact after n products in exact arithmetic; the error shrinks by (√κ − 1)/(√κ + 1) per product, where κ is the
    condition number of A. The recursive residual drifts away from the true one, so convergence is claimed only after
    one more product has shown it; where that product disagrees, the iteration starts again from the true residual.

    Attributes:
        max_iter: most iterations, each of one product with A, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.

    Source: Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).
    """

    max_iter: int = 100
    tol: float = 1e-6

    def __post_init__(self) -> None:
        require_int(self, "max_iter", least=1)
        require_real(self, "tol", least=0)

    def solve_unit(self, matvec: Matvec, b: Tensor, x0: Tensor | None) -> LinearSolution:
        x = torch.zeros_like(b) if x0 is None else x0
        r = b.clone() if x0 is None else b - matvec(x)
        products = 0 if x0 is None else 1
        p, rr = r.clone(), _square(r, products)
        verified, status = 1.0, "max_iter"
        is_true = True  # r is b − A x itself, not its recursion

        for step in range(self.max_iter + 1):
            if rr <= self.tol**2:
                if not is_true:
                    r = b - matvec(x)
                    products += 1
                    p, rr, is_true = r.clone(), _square(r, products), True
                if rr <= self.tol**2:
                    status = "converged"
                    break
                if rr > verified / 4:
                    status = "stagnated"
                    break
                verified = rr
            if step == self.max_iter:
                break
            Ap = matvec(p)
            products += 1
            alpha = rr / _curvature(p, Ap, step, products)
            x.add_(p, alpha=alpha)
            r.sub_(Ap, alpha=alpha)
            rr, previous = _square(r, products), rr
            p.mul_(rr / previous).add_(r)
            is_true = False

        return LinearSolution(x=x, residual=rr**0.5, num_matvecs=products, status=status)


def _square(r: Tensor, products: int) -> float:
    square = torch.dot(r, r).item()
    if not square < float("inf"):
        raise NonFiniteError(bad_product(products))
    return square


def _curvature(p: Tensor, Ap: Tensor, step: int, products: int) -> float:
    """The curvature pᵀAp, which must be positive.

    Raises:
        NonFiniteError: if it is NaN or infinite.
        IndefiniteError: if it is not positive.
    """
    value = torch.dot(p, Ap).item()
    if not abs(value) < float("inf"):
        raise NonFiniteError(bad_product(products))
    if value <= 0:
        curvature = value / torch.dot(p, p).item()
        raise IndefiniteError(
            f"CG needs a positive definite matrix, but step {step} met curvature pᵀAp/pᵀp = {curvature:.2e}. Solve the "
            f"inner problem further, or add damping larger than {-curvature:.2e}."
        )
    return value
