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
        p, rr = r.clone(), torch.dot(r, r)
        residual, verified, status = _root(rr, products), 1.0, "max_iter"
        is_true = True  # r is b − A x itself, not its recursion

        for step in range(self.max_iter + 1):
            if residual <= self.tol or residual == 0:
                if not is_true:
                    r = b - matvec(x)
                    products += 1
                    p, rr, is_true = r.clone(), torch.dot(r, r), True
                    residual = _root(rr, products)
                if residual <= self.tol:
                    status = "converged"
                    break
                if residual > verified / 2:
                    status = "stagnated"
                    break
                verified = residual
            if step == self.max_iter:
                break
            Ap = matvec(p)
            products += 1
            curvature = torch.dot(p, Ap)
            _refuse_bad_curvature(curvature, p, step, products)
            alpha = rr / curvature
            x.addcmul_(p, alpha)
            r.addcmul_(Ap, alpha, value=-1)
            rr, previous = torch.dot(r, r), rr
            p.mul_(rr / previous).add_(r)
            residual, is_true = _root(rr, products), False

        return LinearSolution(x=x, residual=residual, num_matvecs=products, status=status)


def _root(rr: Tensor, products: int) -> float:
    root = rr.item() ** 0.5
    if not root < float("inf"):
        raise NonFiniteError(bad_product(products))
    return root


def _refuse_bad_curvature(curvature: Tensor, p: Tensor, step: int, products: int) -> None:
    value = curvature.item()
    if value > 0:
        return
    if value != value:
        raise NonFiniteError(bad_product(products))
    rayleigh = value / torch.dot(p, p).item()
    raise IndefiniteError(
        f"CG needs a positive definite matrix, but step {step} met curvature pᵀAp/pᵀp = {rayleigh:.2e}. Solve the "
        f"inner problem further, or add damping larger than {-rayleigh:.2e}."
    )
