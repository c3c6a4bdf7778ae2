"""Functions whose intermediate values are computed again in each backward pass, to any order of derivative."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import inside_transform

Outputs = tuple[Tensor | None, ...]
Function = Callable[..., Outputs]
"""A pure function of tensors, which keeps a graph if grad mode is enabled, and returns a tuple of tensors or None."""


def recomputed(function: Function, tensors: tuple[Tensor, ...]) -> Outputs:
    """f(x_1, …, x_n), of which backward passes keep the x_i, and no value that f computes on the way.

    The pull-back f*: (x, c) ↦ (∂f/∂x)ᵀ c is a pure function too. So the backward pass of `recomputed(f)` is
    `recomputed(f*)`, that of `recomputed(f*)` is `recomputed(f**)`, and so on: derivatives of every order are right,
    and none keeps a graph of f. A backward pass evaluates f once more for each order.

    Inside a transform of `torch.func`, f is called as it is.

    Args:
        function: f; it must not read other tensors that require gradients. If it has a method `hidden`, that is how
            `coarsest` learns its formats.
        tensors: x_1, …, x_n.
    """
    if inside_transform():
        return function(*tensors)
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return _Recomputed.apply(function, *tensors)
    with torch.no_grad():
        return function(*tensors)


class _Recomputed(torch.autograd.Function):
    """`recomputed`, if something is to be differentiated."""

    @staticmethod
    def forward(ctx: Any, function: Function, *tensors: Tensor) -> Outputs:
        ctx.function, ctx.hidden = function, getattr(function, "hidden", None)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors, wanted = (
            ctx.saved_tensors,
            tuple(k for k, is_wanted in enumerate(ctx.needs_input_grad[1:]) if is_wanted),
        )
        given = tuple(k for k, c in enumerate(cotangents) if c is not None)
        pull = _Pullback(ctx.function, len(tensors), wanted, given)
        found: list[Tensor | None] = [None] * len(tensors)
        pulled = recomputed(pull, (*tensors, *(c for c in cotangents if c is not None)))
        for k, grad in zip(wanted, pulled, strict=True):
            found[k] = grad
        return None, *found


@dataclass(frozen=True)
class _Pullback:
    """f*: (x, c) ↦ (∂f/∂x)ᵀ c.

    Attributes:
        function: f.
        size: n, how many tensors x has.
        wanted: the indices of the x_i of which the result is wanted.
        given: the indices of the outputs of f for which there is a cotangent.
    """

    function: Function
    size: int
    wanted: tuple[int, ...]
    given: tuple[int, ...]

    @property
    def hidden(self) -> Callable[[str], float] | None:
        """That of f."""
        return getattr(self.function, "hidden", None)

    def __call__(self, *tensors: Tensor) -> Outputs:
        differentiable = torch.is_grad_enabled()
        xs, cotangents = list(tensors[: self.size]), tensors[self.size :]
        with torch.enable_grad():
            for k in self.wanted:
                # One node for each argument: two arguments may be the same tensor.
                xs[k] = xs[k].view_as(xs[k]) if differentiable and xs[k].requires_grad else _leaf(xs[k])
            outputs = self.function(*xs)
        pairs = [(outputs[k], c) for k, c in zip(self.given, cotangents, strict=True)]
        reached = [(y, c) for y, c in pairs if y is not None and y.requires_grad]
        if not reached:
            return (None,) * len(self.wanted)
        ys, cs = zip(*reached, strict=True)
        return torch.autograd.grad(ys, [xs[k] for k in self.wanted], cs, create_graph=differentiable, allow_unused=True)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()
