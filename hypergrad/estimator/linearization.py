"""The two losses linearised at a point: all that the implicit function theorem needs of a problem."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, flatten, leaves, vjp
from hypergrad.estimator.base import require_finite_loss
from hypergrad.linsolve.base import Matvec
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.point import Point, require_finite


@dataclass(frozen=True)
class Linearization:
    """f and φ = ∇_w g, linearised at (w, λ).

    Attributes:
        point: inner loss and ‖φ‖.
        outer_loss: f.
        df_dw: ∂f/∂w, flat.
        direct: ∂f/∂λ by name, None where f does not depend on a hyperparameter.
        phi: φ, flat, with its graph.
        product: v ↦ (∂φ/∂w)ᵀ v on flat vectors.
        hparams: λ, the leaves of the graph.
    """

    point: Point
    outer_loss: float
    df_dw: Tensor
    direct: Mapping[str, Tensor | None]
    phi: Tensor
    product: Matvec
    hparams: Tensors

    @classmethod
    def at(
        cls, problem: InnerProblem, params: Tensors, hparams: Tensors, inner_batch: Any, outer_batch: Any
    ) -> "Linearization":
        """Linearise at (params, hparams), neither of which is changed.

        Raises:
            NonFiniteError: if a loss or φ is NaN or infinite.
            ValueError: if the outer loss depends on no parameter, or φ is not shaped as the parameters.
        """
        w, hp = leaves(params), leaves(hparams)
        with torch.enable_grad():
            outer_loss = problem.outer_loss(w, hp, outer_batch)
            outer_value = require_finite_loss(outer_loss, problem)
            df_dw, direct = _outer_gradients(outer_loss, w, hp)
            inner_loss, phi = _optimality(problem, w, hp, inner_batch)
            point = Point.of(inner_loss, phi)
            require_finite(point, hparams)
            return cls(point, outer_value, df_dw, direct, flatten(phi), vjp(phi, w), hp)

    def indirect(self, adjoint: Tensor) -> dict[str, Tensor | None]:
        """−(∂φ/∂λ)ᵀ v by name, None where φ does not depend on a hyperparameter."""
        pulled = torch.autograd.grad(
            self.phi, tuple(self.hparams.values()), -adjoint, allow_unused=True, retain_graph=True
        )
        return dict(zip(self.hparams, pulled, strict=True))


def _optimality(problem: InnerProblem, w: Tensors, hp: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
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


def _outer_gradients(outer_loss: Tensor, w: Tensors, hp: Tensors) -> tuple[Tensor, dict[str, Tensor | None]]:
    """∂f/∂w, flat, and ∂f/∂λ by name, None where f does not depend on it.

    Raises:
        ValueError: if the outer loss depends on no parameter.
    """
    ignores_all = "The outer loss depends on none of the parameters, so there is nothing to tune through them."
    if not outer_loss.requires_grad:
        raise ValueError(ignores_all)
    grads = torch.autograd.grad(outer_loss, (*w.values(), *hp.values()), allow_unused=True)
    wrt_w, wrt_hp = grads[: len(w)], grads[len(w) :]
    if all(g is None for g in wrt_w):
        raise ValueError(ignores_all)
    filled = {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(w.items(), wrt_w, strict=True)}
    return flatten(filled), dict(zip(hp, wrt_hp, strict=True))
