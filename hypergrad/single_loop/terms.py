"""The terms of which the directions of single-loop methods are sums, each on one batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
        return self._products(leaves(params), leaves(hparams), v, number)

    def inner(self, params: Tensors, hparams: Tensors, number: int = 0) -> Gradients:
        """g with its gradients with respect to w and λ on inner batch `number` of the move, in one backward pass."""
        spend(gradients=1)
        batch, weight = self.inner_batch(number), self.inner_place(number).weight
        w, hp = leaves(params), leaves(hparams)
        return _gradients(lambda: Oracle(self.problem, hp, batch).loss(w), w, hp, weight)

    def outer(self, params: Tensors, hparams: Tensors) -> Gradients:
        """f with its gradients with respect to w and λ on the outer batch of the move, in one backward pass."""
        return self._outer(leaves(params), leaves(hparams))

    def products_and_outer(self, params: Tensors, hparams: Tensors, v: Tensor) -> tuple[Products, Gradients]:
        """`products` on the first inner batch, and `outer`."""
        w, hp = leaves(params), leaves(hparams)
        return self._products(w, hp, v, 0), self._outer(w, hp)

    def _products(self, w: Tensors, hp: Tensors, v: Tensor, number: int) -> Products:
        with torch.enable_grad():
            loss, grads = Oracle(self.problem, hp, self.inner_batch(number))(w)
            names, pieces = [name for name, x in grads.items() if x.requires_grad], unflatten(v, w)
            pulled: tuple[Tensor | None, ...] = (None,) * (len(w) + len(hp))
            if names:
                outputs, along = [grads[name] for name in names], [pieces[name] for name in names]
                pulled = torch.autograd.grad(outputs, (*w.values(), *hp.values()), along, allow_unused=True)
        hvp, mixed = _flats(pulled, w, hp)
        gradient, weight = _flat([x.detach() for x in grads.values()], w), self.inner_place(number).weight
        return Products(loss.detach(), *_weighted(weight, gradient, hvp, mixed))

    def _outer(self, w: Tensors, hp: Tensors) -> Gradients:
        batch, weight = self.outer_batch(), self.outer_place().weight
        return _gradients(lambda: accumulated_outer_loss(self.problem, w, hp, batch), w, hp, weight)


def _gradients(function: Callable[[], Tensor], w: Tensors, hp: Tensors, weight: float) -> Gradients:
    """A function of leaves with its gradients, multiplied by the weight."""

    def formed() -> Gradients:
        with torch.enable_grad():
            loss = function()
            pulled = torch.autograd.grad(loss, (*w.values(), *hp.values()), allow_unused=True)
        return Gradients(loss.detach(), *_weighted(weight, *_flats(pulled, w, hp)))

    return first_order(formed)


def _flats(pieces: Sequence[Tensor | None], w: Tensors, hp: Tensors) -> tuple[Tensor, Tensor]:
    """The pieces of w and of λ as a vector each."""
    return _flat(pieces[: len(w)], w), _flat(pieces[len(w) :], hp)


def _epoch_of(step: int, num_batches: int) -> range:
    """The steps of the epoch of a step."""
    first = step - step % num_batches
    return range(first, first + num_batches)


def _flat(pieces: Sequence[Tensor | None], like: Tensors) -> Tensor:
    """The pieces as one vector, with zeros for those that are None."""
    if len(pieces) == 1 and pieces[0] is not None and pieces[0].ndim == 1:
        return pieces[0]  # a view of all of it would be one more call of torch
    pairs = zip(like.items(), pieces, strict=True)
    return flatten({name: torch.zeros_like(x) if piece is None else piece for (name, x), piece in pairs})


def _weighted(weight: float, *xs: Tensor) -> tuple[Tensor, ...]:
    # A weight is a tensor in a compiled move, whose value is not known while it is traced.
    return xs if isinstance(weight, float | int) and weight == 1 else tuple(weight * x for x in xs)
