"""The terms of which the directions of single-loop methods are sums, each on one batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves
from hypergrad.core.cost import spend
from hypergrad.core.order import first_order
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.batch_place import BatchPlace
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.parts import accumulated_outer_loss


@dataclass(frozen=True)
class Gradients:
    """A loss with its gradients at one (w, λ).

    Attributes:
        loss: shape (); without the weight of the batch.
        wrt_params: with respect to w, flat, shape (n,).
        wrt_hparams: with respect to λ, flat, shape (p,).
    """

    loss: Tensor
    wrt_params: Tensor
    wrt_hparams: Tensor


@dataclass(frozen=True)
class Products:
    """The inner loss with its gradient, and the products of its second derivatives with v, at one (w, λ).

    Attributes:
        loss: g, shape (); without the weight of the batch.
        gradient: ∇_w g, flat, shape (n,).
        hvp: ∇²_ww g v, shape (n,).
        mixed: ∇²_λw g v, flat, shape (p,).
    """

    loss: Tensor
    gradient: Tensor
    hvp: Tensor
    mixed: Tensor


@dataclass(frozen=True)
class Terms:
    """The terms of a move, on its own batches.

    Each term is multiplied by the weight of its batch, so that its mean over the batches of an epoch is the term on all
    data, whatever the sizes of the batches.

    Attributes:
        problem: gives the losses and batches.
        inner_step: of the first inner batch of the move.
        outer_step: of its outer batch.
    """

    problem: InnerProblem
    inner_step: int
    outer_step: int

    def inner_batch(self, number: int = 0) -> Any:
        """Inner batch `number` of the move."""
        return self.problem.inner_batch(self.inner_step + number)

    def inner_place(self, number: int = 0) -> BatchPlace:
        """The place of that batch in its epoch; in a compiled move its index and weight are tensors of shape ()."""
        return self.problem.inner_place(self.inner_step + number)

    def outer_batch(self) -> Any:
        """The outer batch of the move."""
        return self.problem.outer_batch(self.outer_step)

    def outer_place(self) -> BatchPlace:
        """The place of the outer batch, likewise."""
        return self.problem.outer_place(self.outer_step)

    def inner_epoch(self) -> "Iterator[Terms]":
        """The terms of a move on each inner batch of the epoch that the first one of this move is in."""
        for step in _epoch_of(self.inner_step, self.inner_place().num_batches):
            yield replace(self, inner_step=step)

    def outer_epoch(self) -> "Iterator[Terms]":
        """The terms of a move on each outer batch of the epoch that the one of this move is in."""
        for step in _epoch_of(self.outer_step, self.outer_place().num_batches):
            yield replace(self, outer_step=step)

    def products(self, params: Tensors, hparams: Tensors, v: Tensor, number: int = 0) -> Products:
        """g, its gradient and its second derivatives times v on inner batch `number` of the move.

        One gradient, and one walk through its graph for both products.

        Also raised, by what it calls: ValueError if the inner loss is not a scalar, or depends on no parameter.
        """
        w, hp = leaves(params), leaves(hparams)
        inputs = (*w.values(), *hp.values())
        with torch.enable_grad():
            loss, grads = Oracle(self.problem, hp, self.inner_batch(number))(w)
            gradient = flatten(grads)
            pulled: tuple[Tensor | None, ...] = (None,) * len(inputs)
            if gradient.requires_grad:
                pulled = torch.autograd.grad(gradient, inputs, v, allow_unused=True)
        hvp, mixed = _flat(pulled[: len(w)], w), _flat(pulled[len(w) :], hp)
        weight = self.inner_place(number).weight
        return Products(loss.detach(), *(_weighted(x, weight) for x in (gradient.detach(), hvp, mixed)))

    def inner(self, params: Tensors, hparams: Tensors, number: int = 0) -> Gradients:
        """g with its gradients with respect to w and λ on inner batch `number` of the move, in one backward pass."""
        spend(gradients=1)
        batch, weight = self.inner_batch(number), self.inner_place(number).weight
        return _gradients(lambda w, hp: Oracle(self.problem, hp, batch).loss(w), params, hparams, weight)

    def outer(self, params: Tensors, hparams: Tensors) -> Gradients:
        """f with its gradients with respect to w and λ on the outer batch of the move, in one backward pass."""
        batch, weight = self.outer_batch(), self.outer_place().weight
        return _gradients(lambda w, hp: accumulated_outer_loss(self.problem, w, hp, batch), params, hparams, weight)


def _gradients(
    function: Callable[[Tensors, Tensors], Tensor], params: Tensors, hparams: Tensors, weight: float
) -> Gradients:
    w, hp = leaves(params), leaves(hparams)

    @torch.enable_grad()
    def formed() -> Gradients:
        loss = function(w, hp)
        pulled = torch.autograd.grad(loss, (*w.values(), *hp.values()), allow_unused=True)
        flats = _flat(pulled[: len(w)], w), _flat(pulled[len(w) :], hp)
        return Gradients(loss.detach(), *(_weighted(x, weight) for x in flats))

    return first_order(formed)


def _epoch_of(step: int, num_batches: int) -> range:
    """The steps of the epoch of a step."""
    first = step - step % num_batches
    return range(first, first + num_batches)


def _flat(pieces: Sequence[Tensor | None], like: Tensors) -> Tensor:
    """The pieces as one vector, with zeros for those that are None."""
    pairs = zip(like.items(), pieces, strict=True)
    return flatten({name: torch.zeros_like(x) if piece is None else piece for (name, x), piece in pairs})


def _weighted(x: Tensor, weight: float) -> Tensor:
    # A weight is a tensor in a compiled move, whose value is not known while it is traced.
    return x if isinstance(weight, float | int) and weight == 1 else weight * x
