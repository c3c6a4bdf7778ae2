"""Methods that move w, v and λ together from one point."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.single_loop.adjoint import AdjointMethod, start_adjoint
from hypergrad.single_loop.base import Memory, Move
from hypergrad.single_loop.terms import Terms


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
class JointMethod(AdjointMethod):
    """A method whose adjoint v moves along with w, each by one step along its direction.

    A method defines `directions`, and `begin_directions` if these need a memory besides v, in which it must not use the
    names "v", "solver" and "inner_lr".
    """

    @abstractmethod
    def directions(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory) -> tuple[Directions, Memory]:
        """The directions at (w, v, λ), and the memory of the next move without these names."""

    def begin_directions(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        """What `directions` finds in the memory at first, besides these names."""
        return {}

    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        v = start_adjoint(params)
        return {"v": v, "solver": self.start_solver(params), **self.begin_directions(terms, params, hparams)}

    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        D, kept = self.directions(terms, params, hparams, memory)
        after, solver = self.step_solver(params, memory["solver"], unflatten(D.w, params), hparams, t)
        v = self.step_adjoint(memory["v"], D.v, hparams, t)
        memory = {"v": v, "solver": solver, **kept}
        return Move(after, D.hp, memory, D.outer_loss, D.inner_loss, D.w, D.outer_gradient, D.v)


def sampled(terms: Terms, params: Tensors, hparams: Tensors, v: Tensor) -> Directions:
    """The directions on one batch of each loss, whose mean over all batches is that of all data.

    D_w = ∇_w g(w, λ)
    D_v = ∇²_ww g(w, λ) v + ∇_w f(w, λ)
    D_λ = ∇²_λw g(w, λ) v + ∇_λ f(w, λ)
    """
    g, f = terms.products_and_outer(params, hparams, v)
    D_hp = terms.rows.summed(g.mixed + f.wrt_hparams, hparams)
    return Directions(g.gradient, g.hvp + f.wrt_params, D_hp, f.wrt_params, g.loss, f.loss)
