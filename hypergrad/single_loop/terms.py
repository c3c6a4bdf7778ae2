"""The terms of which the directions of single-loop methods are sums, each on one batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves, unflatten
from hypergrad.core.cost import spend
from hypergrad.core.order import first_order
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.batch_place import BatchPlace
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.single_loop.direction_rows import DirectionRows


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

    @cached_property
    def rows(self) -> DirectionRows:
        """What the terms by λ go through where processes keep some rows of λ each."""
        return DirectionRows(self.problem.hparam_rows())

    def products(self, params: Tensors, hparams: Tensors, v: Tensor, number: int = 0) -> Products:
        """g, its gradient and its second derivatives times v on inner batch `number` of the move.

        One gradient, and one walk through its graph for both products.

        Also raised, by what it calls: ValueError if the inner loss is not a scalar, or depends on no parameter.
        """
        w, hp = leaves(params), leaves(hparams)
        with torch.enable_grad():
            loss, grads = Oracle(self.problem, hp, self.inner_batch(number))(w)
            pulled: Pulled = (None,) * (len(w) + len(hp))
            if outputs := _reached(grads, v):
                pulled = torch.autograd.grad(*_walk(outputs, w, hp), allow_unused=True)
        return _products(loss, grads, pulled, hp, self.inner_place(number).weight)

    def inner(self, params: Tensors, hparams: Tensors, number: int = 0) -> Gradients:
        """g with its gradients with respect to w and λ on inner batch `number` of the move, in one backward pass."""
        spend(gradients=1)
        batch, weight = self.inner_batch(number), self.inner_place(number).weight
        return _gradients_of(lambda w, hp: Oracle(self.problem, hp, batch).loss(w), params, hparams, weight)

    def outer(self, params: Tensors, hparams: Tensors) -> Gradients:
        """f with its gradients with respect to w and λ on the outer batch of the move, in one backward pass."""
        return _gradients_of(self._outer_loss, params, hparams, self.outer_place().weight)

    def products_and_outer(self, params: Tensors, hparams: Tensors, v: Tensor) -> tuple[Products, Gradients]:
        """`products` on the first inner batch, and `outer`, to the bit, by one call of the engine for both graphs."""
        w, hp = leaves(params), leaves(hparams)
        f_w, f_hp = leaves(params), leaves(hparams)  # leaves of their own, so that the gradients of both are not summed

        def formed() -> tuple[Products, Gradients]:
            with torch.enable_grad():
                loss, grads = Oracle(self.problem, hp, self.inner_batch())(w)
                f = self._outer_loss(f_w, f_hp)
                outputs = [*_reached(grads, v), (f, None)]
                pulled = torch.autograd.grad(*_walk(outputs, w, hp, f_w, f_hp), allow_unused=True)
            of_g, of_f = pulled[: len(w) + len(hp)], pulled[len(w) + len(hp) :]
            found = _products(loss, grads, of_g, hp, self.inner_place().weight)
            return found, _gradients(f, of_f, f_w, f_hp, self.outer_place().weight)

        return first_order(formed)

    def _outer_loss(self, w: Tensors, hp: Tensors) -> Tensor:
        return accumulated_outer_loss(self.problem, w, hp, self.outer_batch())


Pulled = Sequence[Tensor | None]
"""Gradients with respect to w and then λ; None where nothing depends on a tensor."""


def _reached(grads: Tensors, v: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """The parts of ∇_w g that depend on w or λ, each with its part of v."""
    pieces = unflatten(v, grads)
    return [(x, pieces[name]) for name, x in grads.items() if x.requires_grad]


def _walk(outputs: Sequence[tuple[Tensor, Tensor | None]], *inputs: Tensors) -> Any:
    """The arguments of a backward pass from outputs, each with its cotangent, to all inputs."""
    return [y for y, _ in outputs], [x for xs in inputs for x in xs.values()], [c for _, c in outputs]


def _gradients_of(
    function: Callable[[Tensors, Tensors], Tensor], params: Tensors, hparams: Tensors, weight: float
) -> Gradients:
    w, hp = leaves(params), leaves(hparams)

    def formed() -> Gradients:
        with torch.enable_grad():
            loss = function(w, hp)
            pulled = torch.autograd.grad(loss, (*w.values(), *hp.values()), allow_unused=True)
        return _gradients(loss, pulled, w, hp, weight)

    return first_order(formed)


def _gradients(loss: Tensor, pulled: Pulled, w: Tensors, hp: Tensors, weight: float) -> Gradients:
    flats = _flat(pulled[: len(w)], w), _flat(pulled[len(w) :], hp)
    return Gradients(loss.detach(), *_weighted(weight, *flats))


def _products(loss: Tensor, grads: Tensors, pulled: Pulled, hp: Tensors, weight: float) -> Products:
    n = len(grads)
    gradient = _flat([x.detach() for x in grads.values()], grads)
    flats = gradient, _flat(pulled[:n], grads), _flat(pulled[n:], hp)
    return Products(loss.detach(), *_weighted(weight, *flats))


def _epoch_of(step: int, num_batches: int) -> range:
    """The steps of the epoch of a step."""
    first = step - step % num_batches
    return range(first, first + num_batches)


def _flat(pieces: Sequence[Tensor | None], like: Tensors) -> Tensor:
    """The pieces as one vector, with zeros for those that are None."""
    filled = [torch.zeros_like(x) if piece is None else piece for x, piece in zip(like.values(), pieces, strict=True)]
    if len(filled) == 1 and filled[0].ndim == 1:
        return filled[0]  # a view of all of it would be one more call of torch
    return flatten(dict(zip(like, filled, strict=True)))


def _weighted(weight: float, *xs: Tensor) -> tuple[Tensor, ...]:
    # A weight is a tensor in a compiled move, whose value is not known while it is traced.
    return xs if isinstance(weight, float | int) and weight == 1 else tuple(weight * x for x in xs)
