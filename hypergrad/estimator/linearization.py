"""The two losses linearised at a point: all that the implicit function theorem needs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves
from hypergrad.core.order import first_order
from hypergrad.estimator.base import add_terms, require_finite_loss
from hypergrad.estimator.point import Point
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.problem.rounding import rounding
from hypergrad.product.base import Stationarity


@dataclass(frozen=True)
class Linearization:
    """f and φ, linearised at (w, λ).

    Attributes:
        point: (w, λ), with the batches.
        outer_loss: f.
        df_dw: ∂f/∂w, flat.
        direct: ∂f/∂λ by name; None if f does not depend on a hyperparameter.
        inner: φ with its products.
        outer_rounding: ε of the coarsest format in which f is computed.
    """

    point: Point
    outer_loss: float
    df_dw: Tensor
    direct: Mapping[str, Tensor | None]
    inner: Stationarity
    outer_rounding: float

    @classmethod
    def at(cls, point: Point) -> "Linearization":
        """Linearise at a point, which is not changed.

        Also raised, by what it calls: NonFiniteError if a loss or φ is NaN or infinite; ValueError if the outer loss
        depends on no parameter, or φ does not fulfil a requirement of the products.
        """
        problem = point.oracle.problem
        w, hp = leaves(point.params), leaves(point.oracle.hparams)

        @torch.enable_grad()
        def outer() -> tuple[float, Tensor, dict[str, Tensor | None], float]:
            outer_loss = accumulated_outer_loss(problem, w, hp, point.outer_batch)
            value, gradients = require_finite_loss(outer_loss, problem), _outer_gradients(outer_loss, w, hp)
            return value, *gradients, rounding(problem, "outer", outer_loss)

        outer_value, df_dw, direct, coarsest = first_order(outer)
        return cls(point, outer_value, df_dw, direct, point.product.linearize(point.oracle, point.params), coarsest)

    def indirect(self, adjoint: Tensor) -> Mapping[str, Tensor | None]:
        """−(∂φ/∂λ)ᵀ v by name; None if φ does not depend on a hyperparameter."""
        return self.inner.mixed(-adjoint)

    def flat_indirect(self, adjoint: Tensor) -> Tensor:
        """−(∂φ/∂λ)ᵀ v, flat."""
        hparams, terms = self.point.oracle.hparams, self.indirect(adjoint)
        return flatten({k: torch.zeros_like(hparams[k]) if x is None else x for k, x in terms.items()}).detach()

    def gradient(self, adjoint: Tensor) -> Tensor:
        """The hypergradient with this adjoint, flat."""
        hparams = self.point.oracle.hparams
        direct = flatten({k: torch.zeros_like(hparams[k]) if x is None else x for k, x in self.direct.items()})
        return direct.detach() + self.flat_indirect(adjoint)


def require_dependence(point: Point, hint: str) -> None:
    """Refuse to tune what the solution does not depend on, such as a coefficient of the solver, before any step.

    Args:
        point: where both losses are evaluated.
        hint: what an error says of such a hyperparameter.

    Also raised, by what it calls: UnusedHyperparameterError if neither the gradient of the inner loss nor the outer
    loss depends on a hyperparameter.
    """
    here = Linearization.at(point)
    add_terms(here.direct, here.indirect(here.df_dw), hint)


def _outer_gradients(outer_loss: Tensor, w: Tensors, hp: Tensors) -> tuple[Tensor, dict[str, Tensor | None]]:
    """∂f/∂w, flat, and ∂f/∂λ by name; None if f does not depend on it.

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
