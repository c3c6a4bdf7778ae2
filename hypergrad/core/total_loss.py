"""A loss that is a sum over processes, sent together with its first derivatives."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypergrad.core.autodiff import outside_autocast
from hypergrad.core.collectives import Ranks
from hypergrad.core.formats import coarsest


def total_loss(
    ranks: Ranks, loss: Callable[..., Tensor], inputs: Sequence[Tensor], own_terms: Collection[int] = ()
) -> Tensor:
    """Σ_r loss_r(*inputs) over the ranks, shape (), by one all-reduce that brings its first derivatives along.

    It has no second derivatives. No graph of a loss is kept.

    Args:
        ranks: whose losses are added.
        loss: of this rank, a pure function of tensors.
        inputs: the same on all ranks: all tensors with respect to which the sum is differentiated.
        own_terms: the indices of inputs by which the derivatives are those of loss_r, on each rank its own. They may
            be other tensors on each rank.
    """
    wanted = [x.requires_grad for x in inputs]
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(is_wanted) for x, is_wanted in zip(inputs, wanted, strict=True)]
        own = loss(*leaves)
        grads: Sequence[Tensor | None] = [None] * sum(wanted)
        if own.requires_grad:
            with outside_autocast(own):
                grads = torch.autograd.grad(own, [x for x in leaves if x.requires_grad], allow_unused=True)
    kept = [k in own_terms for k, is_wanted in enumerate(wanted) if is_wanted]
    sent = [g for g, is_kept in zip(grads, kept, strict=True) if not (g is None or is_kept)]
    value, *sums = ranks.total([own.detach(), *sent])
    rest = iter(sums)
    found = [g if g is None or is_kept else next(rest) for g, is_kept in zip(grads, kept, strict=True)]
    totals = iter(found)
    known = _Known(value, [next(totals) if is_wanted else None for is_wanted in wanted], own)
    return _Loss.apply(known, *inputs)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Known:
    """A loss and its gradient.

    Attributes:
        value: of the loss.
        grads: its derivative by each input; None for those that it does not depend on.
        own: the loss of this rank. What is left of its graph says in which formats it was computed.
    """

    value: Tensor
    grads: Sequence[Tensor | None]
    own: Tensor


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, known: _Known, *inputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.grads, own = known.grads, known.own
        ctx.hidden = lambda name: coarsest(own, name)
        return known.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *(None if g is None else cotangent * g for g in ctx.grads)
