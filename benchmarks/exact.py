"""The exact hypergradient of a case, twice."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import hypergrad as hg
from benchmarks.by_hand import closed_form, conjugate_gradient
from benchmarks.case import Case
from hypergrad.core.autodiff import flatten

_LARGEST_MATRIX = 4000
_AGREEMENT = 1e-9


@dataclass(frozen=True)
class Exact:
    """The hypergradient −w ∘ v of a case, with (∂²g/∂w² + δI) v = ∂f/∂w solved as far as float64 goes.

    Attributes:
        value: flat; by hand, from a Cholesky factorisation, or CG on a large problem, on the closed-form product.
        residual: ‖∂f/∂w − (∂²g/∂w² + δI) v‖ / ‖∂f/∂w‖.
        disagreement: relative distance from what `hg.Implicit` makes of it, on automatic products.
    """

    value: Tensor
    residual: float
    disagreement: float

    @classmethod
    def of(cls, case: Case) -> "Exact":
        """The exact hypergradient of a case.

        Raises:
            RuntimeError: if the two ways do not agree.
        """
        b, product = closed_form(case)
        factorise = b.numel() <= _LARGEST_MATRIX
        v = _by_cholesky(product, b) if factorise else conjugate_gradient(product, b, 10 * b.numel(), tol=1e-13)
        value = -flatten(case.params) * v
        ours = hg.Implicit(
            linsolve=hg.CG(max_iter=10_000, tol=1e-12), inner_steps=0, damping=case.damping, error_bar=False
        ).estimate(case.problem, case.hparams, case.params)
        disagreement = ((flatten(ours.grad) - value).norm() / value.norm()).item()
        if not disagreement <= _AGREEMENT:
            raise RuntimeError(
                f"Two ways to the exact hypergradient of {type(case.problem).__name__} must agree to {_AGREEMENT:.0e}, "
                f"but they are {disagreement:.1e} apart; one of the products is wrong."
            )
        return cls(value, ((b - product(v)).norm() / b.norm()).item(), disagreement)

    def error(self, found: Tensor) -> float:
        """‖found − exact‖ / ‖exact‖."""
        return ((found - self.value).norm() / self.value.norm()).item()


def _by_cholesky(product: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    A = torch.stack([product(e) for e in torch.eye(b.numel(), dtype=b.dtype)])
    return torch.cholesky_solve(b[:, None], torch.linalg.cholesky((A + A.T) / 2))[:, 0]
