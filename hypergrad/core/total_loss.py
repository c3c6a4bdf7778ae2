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
    ranks: Ranks,
    loss: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    filled: Collection[int] = (),
    own_terms: Collection[int] = (),
) -> Tensor:
    """Σ_r loss_r(*inputs) over the ranks, shape (), by one all-reduce that brings its first derivatives along.

    It has no second derivatives. No graph of a loss is kept.

    Args:
        ranks: whose losses are added.
        loss: of this rank, a pure function of tensors.
        inputs: the same on all ranks: all tensors with respect to which the sum is differentiated.
        filled: the indices of inputs of which a rank may ignore some, by which its derivative is then 0. By others, all
            ranks must depend on the same.
        own_terms: the indices of inputs by which the derivatives are those of loss_r, on each rank its own. They may
            be other tensors on each rank.
    """
    wanted = [k for k, x in enumerate(inputs) if x.requires_grad]
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        own, grads = loss(*leaves), dict[int, Tensor | None]()
        if own.requires_grad:
            with outside_autocast(own):
                found = torch.autograd.grad(own, [leaves[k] for k in wanted], allow_unused=True)
            grads.update(zip(wanted, found, strict=True))
    if any(grads.get(k) is not None for k in filled):
        ignored = [k for k in filled if k in grads and grads[k] is None]
        grads.update({k: torch.zeros_like(inputs[k]) for k in ignored})
    summed = [k for k, g in grads.items() if g is not None and k not in own_terms]
    value, *sums = ranks.total([own.detach(), *(g for k in summed if (g := grads[k]) is not None)])
    grads.update(zip(summed, sums, strict=True))
    known = _Known(value, [grads.get(k) for k in range(len(inputs))], own)
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
