"""The exact hypergradient of a case, twice."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jvp

import hypergrad as hg
from benchmarks.by_hand import closed_form, conjugate_gradient, retained_graph
from benchmarks.case import Case
from benchmarks.problem.softmax import SoftmaxRegression
from hypergrad.autodiff import flatten, unflatten

_LARGEST_MATRIX = 4000
_AGREEMENT = 1e-9


@dataclass(frozen=True)
class Exact:
    """The hypergradient −w ∘ v of a case, with (∂²g/∂w² + δI) v = ∂f/∂w solved as far as float64 goes.

    Attributes:
        value: flat; by hand, from a Cholesky factorisation or CG, on the closed-form product where there is one, and on
            forward over reverse mode otherwise.
        residual: ‖∂f/∂w − (∂²g/∂w² + δI) v‖ / ‖∂f/∂w‖.
        disagreement: relative distance from what `hg.Implicit` makes of it, on other products.
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
        b, product = _system(case)
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


def _system(case: Case) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """∂f/∂w and v ↦ (∂²g/∂w² + δI) v on flat vectors."""
    if isinstance(case.problem, SoftmaxRegression):
        W, b, product = closed_form(case)
        return b.view(-1), lambda v: product(v.view_as(W)).view(-1)

    def inner(w: Tensor) -> Tensor:
        return case.problem.inner_loss(unflatten(w, case.params), case.hparams, None)

    w, (b, _, _) = flatten(case.params), retained_graph(case)
    return b, lambda v: jvp(grad(inner), (w,), (v,))[1] + case.damping * v


def _by_cholesky(product: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    A = torch.stack([product(e) for e in torch.eye(b.numel(), dtype=b.dtype)])
    return torch.cholesky_solve(b[:, None], torch.linalg.cholesky((A + A.T) / 2))[:, 0]
