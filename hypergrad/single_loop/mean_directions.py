"""The directions of w, v and u on a few batches, as a field whose derivatives say how fast steps may be."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach, flatten, leaves, unflatten
from hypergrad.core.cost import spend
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.batch_place import BatchPlace
from hypergrad.single_loop.terms import Terms


@dataclass(frozen=True)
class Field:
    """D_w, D_v and D_u at one point, flat; D_u = (∂λ/∂u)ᵀ D_λ, because optimisers move u with λ = transform(u)."""

    w: Tensor
    v: Tensor
    u: Tensor


@dataclass(frozen=True)
class MeanDirections:
    """The directions, in the mean over the first batches of a run.

    Attributes:
        problem: gives the losses and batches.
        num_inner: inner batches, from `inner_step` on.
        num_outer: outer batches, from `outer_step` on.
        inner_step: of the first inner batch.
        outer_step: of the first outer batch.
    """

    problem: InnerProblem
    num_inner: int
    num_outer: int
    inner_step: int = 0
    outer_step: int = 0

    @classmethod
    def of(cls, problem: InnerProblem, num_batches: int, inner_step: int, outer_step: int) -> "MeanDirections":
        """That on at most `num_batches` different batches of each loss."""
        inner, outer = problem.inner_place(inner_step), problem.outer_place(outer_step)
        num_inner, num_outer = (_num_different(place, num_batches) for place in (inner, outer))
        return cls(problem, num_inner, num_outer, inner_step, outer_step)

    def hvp(self, params: Tensors, hparams: Tensors, numbers: range) -> Callable[[Tensor], Tensor]:
        """v ↦ H v, in the mean over some of the inner batches."""
        terms = Terms(self.problem, self.inner_step, self.outer_step)

        def product(v: Tensor) -> Tensor:
            spend(matvecs=len(numbers))
            return _mean([terms.products(params, hparams, v, number).hvp for number in numbers])

        return product

    def at(self, params: Tensors, u: Tensors, v: Tensor) -> Field:
        """D_w, D_v and D_u at (w, u, v)."""
        hparams, g = self._natural(u), self.products(params, u, v)
        terms = [Terms(self.problem, self.inner_step, self.outer_step + k) for k in range(self.num_outer)]
        f = [each.outer(params, hparams) for each in terms]
        of_w, of_hp = _mean([x.wrt_params for x in f]), _mean([x.wrt_hparams for x in f])
        return Field(g.w, g.v + of_w, g.u + self._pulled_back(u, of_hp))

    def products(self, params: Tensors, u: Tensors, v: Tensor) -> Field:
        """The terms of the inner loss: ∇_w g, H v and (∂λ/∂u)ᵀ ∇²_λw g v."""
        terms, hparams = Terms(self.problem, self.inner_step, self.outer_step), self._natural(u)
        spend(matvecs=self.num_inner)
        g = [terms.products(params, hparams, v, number) for number in range(self.num_inner)]
        mixed = self._pulled_back(u, _mean([x.mixed for x in g]))
        return Field(_mean([x.gradient for x in g]), _mean([x.hvp for x in g]), mixed)

    def derivative(self, params: Tensors, u: Tensors, v: Tensor, dw: Tensor, du: Tensor) -> Field:
        """The derivative of the field in the direction (dw, du) of (w, u) at fixed v, by a central difference."""
        w, flat_u = flatten(params), flatten(u)
        size, length = (torch.linalg.vector_norm(torch.cat(pair)).item() for pair in ((w, flat_u), (dw, du)))
        h = torch.finfo(w.dtype).eps ** (1 / 3) * max(size, 1.0) / length if length > 0 else 1.0
        ahead, behind = (
            self.at(unflatten(w + side * dw, params), unflatten(flat_u + side * du, u), v) for side in (h, -h)
        )
        return Field(*((getattr(ahead, x) - getattr(behind, x)) / (2 * h) for x in ("w", "v", "u")))

    def _natural(self, u: Tensors) -> Tensors:
        spaces = self.problem.hyperparameters()
        return detach({name: spaces[name].to_natural(x) for name, x in u.items()})

    def _pulled_back(self, u: Tensors, of_hparams: Tensor) -> Tensor:
        """(∂λ/∂u)ᵀ times a flat vector shaped as λ, flat."""
        spaces, points = self.problem.hyperparameters(), leaves(u)
        with torch.enable_grad():
            hparams = {name: spaces[name].to_natural(x) for name, x in points.items()}
        pieces = unflatten(of_hparams, hparams)
        pulled = torch.autograd.grad(tuple(hparams.values()), tuple(points.values()), tuple(pieces.values()))
        return torch.cat([x.reshape(-1) for x in pulled])


def _mean(tensors: list[Tensor]) -> Tensor:
    return sum(tensors[1:], start=tensors[0]) / len(tensors)


def _num_different(place: BatchPlace, most: int) -> int:
    """How many batches to use, of the different ones of an epoch; all that are asked for if those are not known."""
    is_known = place.is_fixed or place.num_batches > 1
    return min(place.num_batches, most) if is_known else most
