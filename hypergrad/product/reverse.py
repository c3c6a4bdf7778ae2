"""Products by automatic differentiation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves, vjp
from hypergrad.core.operator import Operator
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.point import Point, require_finite
from hypergrad.product.base import Product, Stationarity, shapes_of


@dataclass(frozen=True, kw_only=True)
class Reverse(Product):
    """Reverse mode over a retained graph of φ: exact, and for φ = ∇_w g the fastest eager product on a CPU.

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation (1994).
    """

    def linearise(self, problem: InnerProblem, params: Tensors, hparams: Tensors, batch: Any) -> Stationarity:
        w, hp = leaves(params), leaves(hparams)
        with torch.enable_grad():
            inner_loss, named = optimality_at(problem, w, hp, batch)
            phi = flatten(named)
            point = Point.of(inner_loss, phi)
            require_finite(point, hparams)

            def mixed(v: Tensor) -> dict[str, Tensor | None]:
                pulled = torch.autograd.grad(phi, tuple(hp.values()), v, allow_unused=True, retain_graph=True)
                return dict(zip(hp, pulled, strict=True))

            pull = vjp(phi, w)
            product = Operator(pull, pull, shapes_of(w), symmetric=problem.is_minimisation, dtype=phi.dtype)
            return Stationarity(point, phi.detach(), product, mixed)


def optimality_at(problem: InnerProblem, w: Tensors, hp: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
    """The inner loss and φ with its graph, from one forward pass where φ is the gradient of g.

    Raises:
        ValueError: if φ is not shaped as w.
    """
    if problem.is_minimisation:
        return problem.inner_loss_and_gradient(w, hp, batch)
    with torch.no_grad():
        loss = problem.inner_loss(w, hp, batch)
    phi = problem.optimality(w, hp, batch)
    wanted = {name: tuple(p.shape) for name, p in w.items()}
    met = {name: tuple(p.shape) for name, p in phi.items()}
    if wanted != met:
        raise ValueError(
            f"{type(problem).__name__}.optimality must return tensors shaped as the parameters, {wanted}, but it "
            f"returned {met}."
        )
    return loss, phi
