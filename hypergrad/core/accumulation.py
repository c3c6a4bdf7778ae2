"""Sums of functions of tensors, with the graph of one function at a time, in derivatives of any order too.

A sum of one function is that function, which keeps no graph and is computed again in each backward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import GRADIENTS, outside_autocast
from hypergrad.core.cost import Spent, account, charging
from hypergrad.core.formats import autocasts, coarsest
from hypergrad.core.torch_internals.transforms import peek_interpreter_stack

Outputs = tuple[Tensor | None, ...]
"""What a function returns; None for an output that is zero because nothing depends on its input."""
Summand = Callable[..., Outputs]
"""A pure function of tensors."""


def accumulated(summands: Sequence[Summand], inputs: Sequence[Tensor]) -> Outputs:
    """Σ_k f_k(*inputs), whose derivatives of any order are sums over k too.

    No graph of the f_k is kept. A backward pass evaluates them again, one after the other, and frees the graph of each
    before the next. So the memory is that of one f_k, and a backward pass costs one more evaluation. All together count
    as one of them, see `hypergrad.core.cost`. Inside a transform of `torch.func`, or in Taylor arithmetic, the sum is a
    plain one.

    Args:
        summands: the f_k, at least one; functions of all inputs that return as many outputs.
        inputs: all tensors with respect to which the sum is ever differentiated.
    """
    if _is_transformed(inputs) or not torch.is_grad_enabled():
        return _total(summands, inputs)
    here = _as_here(summands, inputs[0])
    with outside_autocast(inputs[0]):
        return _Sum.apply(here, *inputs)  # type: ignore[return-value]


def accumulated_loss(summands: Sequence[Callable[..., Tensor]], inputs: Sequence[Tensor]) -> Tensor:
    """Σ_k f_k(*inputs) of scalars, as `accumulated`, whose first gradient is formed along with the value.

    So one forward and one backward pass of each f_k are enough for a loss with its gradient.
    """
    boxed = tuple(_Boxed(f) for f in summands)
    if _is_transformed(inputs) or not torch.is_grad_enabled():
        (total,) = _total(boxed, inputs)
    else:
        here = _as_here(boxed, inputs[0])
        with outside_autocast(inputs[0]):
            (total,) = _Loss.apply(here, *inputs)  # type: ignore[misc]
    assert total is not None  # every loss is a tensor
    return total


def _is_transformed(inputs: Sequence[Any]) -> bool:
    return peek_interpreter_stack() is not None or any(type(x) in GRADIENTS for x in inputs)


def _total(summands: Sequence[Summand], inputs: Sequence[Tensor]) -> Outputs:
    """The sum in order, which counts as the largest of its terms."""
    spent, total = account(), None
    before = most = spent.gradients
    for f in summands:
        spent.gradients = before
        found = f(*inputs)
        total = found if total is None else tuple(map(_plus, total, found))
        most = max(most, spent.gradients)
    spent.gradients = most
    assert total is not None  # there is at least one
    return total


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


@dataclass(frozen=True)
class _Boxed:
    """f as a function with one output."""

    function: Callable[..., Tensor]

    def __call__(self, *inputs: Tensor) -> Outputs:
        return (self.function(*inputs),)


@dataclass(frozen=True)
class _Autocast:
    """f under autocast, as its call found it; a cast that is kept would cut the graph of a later evaluation."""

    function: Summand
    device: str
    dtype: torch.dtype

    def __call__(self, *inputs: Tensor) -> Outputs:
        with torch.autocast(self.device, self.dtype, cache_enabled=False):
            return self.function(*inputs)


def _as_here(summands: Sequence[Summand], like: Tensor) -> tuple[Summand, ...]:
    """The functions, which are evaluated under the autocast of now."""
    device = like.device.type
    if not autocasts(device):
        return tuple(summands)
    return tuple(_Autocast(f, device, torch.get_autocast_dtype(device)) for f in summands)


@dataclass(frozen=True)
class _Formats:
    """ε of the coarsest format in which f is computed, found by one more evaluation; see `coarsest`."""

    function: Summand
    inputs: tuple[Tensor, ...]

    def __call__(self, name: str) -> float:
        with torch.enable_grad(), charging(Spent()):
            found = self.function(*(x.detach().requires_grad_(x.is_floating_point()) for x in self.inputs))
            return max(coarsest(y, name) for y in found if y is not None)


@dataclass(frozen=True)
class _PullBack:
    """(*x, *c) ↦ (∂f/∂x)ᵀ c.

    Attributes:
        function: f.
        wanted: for each input x of f, whether its derivative is an output here.
        given: for each output of f, whether there is a cotangent c; those that are missing are zero.
    """

    function: Summand
    wanted: tuple[bool, ...]
    given: tuple[bool, ...]

    def __call__(self, *arguments: Tensor) -> Outputs:
        x, cotangents = arguments[: len(self.wanted)], iter(arguments[len(self.wanted) :])
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x = [_as_input(one, wanted, differentiable) for one, wanted in zip(x, self.wanted, strict=True)]
            given = zip(self.function(*x), self.given, strict=True)
            pairs = [(y, next(cotangents)) for y, is_given in given if is_given]
            reached = [(y, c) for y, c in pairs if y is not None and y.requires_grad]
            inputs = [one for one, wanted in zip(x, self.wanted, strict=True) if wanted]
            if not reached:
                return (None,) * len(inputs)
            ys, cs = zip(*reached, strict=True)
            return torch.autograd.grad(ys, inputs, cs, create_graph=differentiable, allow_unused=True)


def _as_input(x: Tensor, wanted: bool, differentiable: bool) -> Tensor:
    if not differentiable:
        x = x.detach()
    if not wanted:
        return x
    # One node for each input: two inputs may be the same tensor.
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _pulled(ctx: Any, inputs: Sequence[Tensor], cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """What a backward pass returns: the sum of the pull-backs, and None for the functions themselves."""
    wanted, given = ctx.needs_input_grad[1:], tuple(c is not None for c in cotangents)
    pull_backs = [_PullBack(f, wanted, given) for f in ctx.summands]
    with charging(ctx.spent):
        found = iter(accumulated(pull_backs, [*inputs, *(c for c in cotangents if c is not None)]))
    return None, *(next(found) if is_wanted else None for is_wanted in wanted)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, summands: tuple[Summand, ...], *inputs: Tensor) -> Outputs:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A device has a thread of its own for backward passes, which would count elsewhere.
        ctx.summands, ctx.spent = summands, account()
        ctx.hidden = _Formats(summands[0], tuple(x.detach() for x in inputs))
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return _total(summands, inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _pulled(ctx, ctx.saved_tensors, cotangents)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, summands: tuple[Summand, ...], *inputs: Tensor) -> Outputs:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.summands, ctx.spent = summands, account()
        ctx.hidden = _Formats(summands[0], tuple(x.detach() for x in inputs))
        ctx.set_materialize_grads(False)
        wanted = ctx.needs_input_grad[1:]
        value, *grads = _total([_WithGradient(f, wanted) for f in summands], inputs)
        ctx.reached = tuple(g is not None for g in grads)
        ctx.save_for_backward(*inputs, *(g for g in grads if g is not None))
        return (value,)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted, saved = ctx.needs_input_grad[1:], ctx.saved_tensors
        inputs, kept = saved[: len(wanted)], iter(saved[len(wanted) :])
        if torch.is_grad_enabled():
            return _pulled(ctx, inputs, (cotangent,))
        assert cotangent is not None  # the only output has one
        grads = iter([next(kept) * cotangent if is_reached else None for is_reached in ctx.reached])
        return None, *(next(grads) if is_wanted else None for is_wanted in wanted)


@dataclass(frozen=True)
class _WithGradient:
    """(*x) ↦ f, and ∂f/∂x for the inputs that are wanted."""

    function: Summand
    wanted: tuple[bool, ...]

    def __call__(self, *inputs: Tensor) -> Outputs:
        with torch.enable_grad():
            x = [_as_input(one, wanted, False) for one, wanted in zip(inputs, self.wanted, strict=True)]
            (value,) = self.function(*x)
            leaves = [one for one, wanted in zip(x, self.wanted, strict=True) if wanted]
            assert value is not None  # a loss
            if not (leaves and value.requires_grad):
                return value.detach(), *(None for _ in leaves)
            return value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True)
