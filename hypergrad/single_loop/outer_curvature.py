"""The curvature of F in the directions that the outer optimiser moves, and how late λ's direction follows it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.linsolve.cg import CG
from hypergrad.single_loop.mean_directions import Field, MeanDirections

_SOLVER = CG(max_iter=50, tol=0.1)
"""A judgement: a curvature within a tenth is enough for a step size."""


@dataclass(frozen=True)
class OuterCurvature:
    """What limits the steps of u, where λ = transform(u).

    Attributes:
        curvature: the largest |curvature| of u ↦ F that was found, from below.
        lag: −∂/∂σ at σ = 0 of the curvature in that direction, with the inner Hessian H + σ. After a step of u, D_u
            reaches its new value only as w and v do; the area between both, over the moves and per step of u, is lag
            over the inner step.
        drift: the largest |∂F/∂u| of the hyperparameters with a constraint, whose u has a scale of order 1, such as
            log λ; 0 if there are none.
    """

    curvature: float
    lag: float
    drift: float


@dataclass(frozen=True)
class CurvatureOfF:
    """d ↦ ∇²F d at one (w, u), with w and v there taken as solutions: the derivative of D_u along their responses.

    δw = −H⁻¹ ∂_u D_w d,  δv = −H⁻¹ ∂D_v (δw, d)  and  ∇²F d = ∂D_u (δw, d) + ∇²_uw g δv.

    Attributes:
        field: the directions.
        params: w.
        u: the unconstrained hyperparameters.
        v: the adjoint at (w, u).
        solve: b, x₀ ↦ H⁻¹ b, from x₀ on.
    """

    field: MeanDirections
    params: Tensors
    u: Tensors
    v: Tensor
    solve: Callable[[Tensor, Tensor | None], Tensor]

    def along(self, d: Tensor, before: "Response | None" = None) -> "Response":
        """∇²F d, with linear systems that start from another response."""
        dw = -self.solve(self._derivative(torch.zeros_like(self.v), d).w, None if before is None else -before.w)
        D = self._derivative(dw, d)
        dv = -self.solve(D.v, None if before is None else -before.v)
        return Response(d, D.u + self._mixed(dv), dw, dv)

    def lag(self, response: "Response") -> float:
        """−dᵀ ∂(∇²F)/∂σ d for H + σ at σ = 0, from the response to d."""
        dw = -self.solve(response.w, None)
        D = self._derivative(dw, torch.zeros_like(response.d))
        dv = -self.solve(response.v + D.v, None)
        return -(response.d @ (D.u + self._mixed(dv))).item()

    def _derivative(self, dw: Tensor, du: Tensor) -> Field:
        return self.field.derivative(self.params, self.u, self.v, dw, du)

    def _mixed(self, v: Tensor) -> Tensor:
        return self.field.products(self.params, self.u, v).u


@dataclass(frozen=True)
class Response:
    """∇²F d for one d, and δw and δv.

    Attributes:
        d: shape (p,).
        product: ∇²F d, shape (p,).
        w: δw, shape (n,).
        v: δv, shape (n,).
    """

    d: Tensor
    product: Tensor
    w: Tensor
    v: Tensor


def outer_curvature(
    field: MeanDirections, params: Tensors, u: Tensors, hparams: Tensors, num_iter: int
) -> OuterCurvature:
    """By power iteration on ∇²F, where one Newton step of the inner problem leads from `params`.

    At w = 0 itself, for example, F would not seem to depend on an L2 penalty.

    Also raised, by what it calls: IndefiniteError if the inner Hessian is not positive definite; NonFiniteError if a
    product is NaN or infinite.
    """
    zero, everything = torch.zeros_like(flatten(params)), range(field.num_inner)
    step = _solution(field.hvp(params, hparams, everything), field.at(params, u, zero).w, None)
    params = unflatten(flatten(params) - step, params)
    solve = partial(_solution, field.hvp(params, hparams, everything))
    v = -solve(field.at(params, u, zero).v, None)
    operator, drift = CurvatureOfF(field, params, u, v, solve), _drift(field, params, u, v)
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(flatten(u).numel(), generator=generator, dtype=torch.float64).to(zero)
    response = operator.along(d / torch.linalg.vector_norm(d))
    for _ in range(num_iter - 1):
        size = torch.linalg.vector_norm(response.product)
        if size.item() == 0:
            return OuterCurvature(0.0, 0.0, drift)
        response = operator.along(response.product / size, response)
    return OuterCurvature(torch.linalg.vector_norm(response.product).item(), operator.lag(response), drift)


def _drift(field: MeanDirections, params: Tensors, u: Tensors, v: Tensor) -> float:
    spaces, gradient = field.problem.hyperparameters(), unflatten(field.at(params, u, v).u, u)
    moving = [gradient[name].abs().max() for name, x in u.items() if spaces[name].to_natural(x) is not x]
    return torch.stack(moving).max().item() if moving else 0.0


def _solution(hvp: Callable[[Tensor], Tensor], b: Tensor, x0: Tensor | None) -> Tensor:
    return _SOLVER.solve(hvp, b, x0).x
