"""Methods that move w, v and λ together from one point."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.single_loop.base import Memory, Method, Move
from hypergrad.single_loop.terms import Terms
from hypergrad.solver.coefficient import Coefficient, Range, coefficient
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.solver.requirements import require_coefficient
from hypergrad.solver.schedule import Schedule


@dataclass(frozen=True)
class Directions:
    """The directions of w, v and λ at one (w, v, λ), or terms of them.

    Attributes:
        w: D_w, flat, shape (n,).
        v: D_v, shape (n,).
        hp: D_λ, flat, shape (p,).
        outer_gradient: ∂f/∂w, shape (n,).
        inner_loss: g, shape ().
        outer_loss: f, shape ().
    """

    w: Tensor
    v: Tensor
    hp: Tensor
    outer_gradient: Tensor
    inner_loss: Tensor
    outer_loss: Tensor


@dataclass(frozen=True, kw_only=True)
class JointMethod(Method):
    """A method with an adjoint v → −H⁻¹ ∇_w f that moves along with w, each by one step along its direction.

    A method defines `directions`, and `begin_directions` if these need a memory besides v, in which it must not use the
    names "v" and "solver". v begins at 0.

    Attributes:
        adjoint_lr: the step of v −= adjoint_lr D_v, > 0; None for the lr of gradient descent.
    """

    adjoint_lr: float | Schedule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adjoint_lr is not None:
            require_coefficient(self, "adjoint_lr", Range(above=0))
        elif not isinstance(self.solver, GradientDescent):
            raise ValueError(
                f"{type(self).__name__}.adjoint_lr must be given with {type(self.solver).__name__}, whose lr is no "
                "step along a gradient. Take less than 2 over the largest curvature of the inner loss."
            )

    @abstractmethod
    def directions(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory) -> tuple[Directions, Memory]:
        """The directions at (w, v, λ), and the memory of the next move without "v" and "solver"."""

    def begin_directions(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        """What `directions` finds in the memory at first, besides "v" and "solver"."""
        return {}

    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        like = next(iter(params.values()))
        v = torch.zeros(sum(w.numel() for w in params.values()), dtype=like.dtype, device=like.device)
        return {"v": v, "solver": self.start_solver(params), **self.begin_directions(terms, params, hparams)}

    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        D, kept = self.directions(terms, params, hparams, memory)
        after, solver = self.step_solver(params, memory["solver"], unflatten(D.w, params), hparams, t)
        lr: Coefficient = self.solver.coefficients()["lr"] if self.adjoint_lr is None else self.adjoint_lr
        v = memory["v"] - coefficient(lr, hparams, t) * D.v
        memory = {"v": v, "solver": solver, **kept}
        return Move(after, D.hp, memory, D.outer_loss, D.inner_loss, D.w, D.outer_gradient, D.v)


def sampled(terms: Terms, params: Tensors, hparams: Tensors, v: Tensor) -> Directions:
    """The directions on one batch of each loss, whose mean over all batches is that of all data.

    D_w = ∇_w g(w, λ)
    D_v = ∇²_ww g(w, λ) v + ∇_w f(w, λ)
    D_λ = ∇²_λw g(w, λ) v + ∇_λ f(w, λ)
    """
    g, f = terms.products(params, hparams, v), terms.outer(params, hparams)
    return Directions(g.gradient, g.hvp + f.wrt_params, g.mixed + f.wrt_hparams, f.wrt_params, g.loss, f.loss)
