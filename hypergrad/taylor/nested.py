"""Derivatives of any order of a function of one number, by nested forward mode."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.elementary import Elementary


def nested_derivatives(function: Callable[[Tensor], Any], order: int, like: Tensor) -> list[Any]:
    """f(0), f′(0), …, f⁽ᴷ⁾(0) by K nested `torch.func.jvp`, for some 2ᴷ times the operations of f.

    Args:
        function: maps a tensor of shape () to any nesting of tensors; non-floating ones among them are constants.
        order: K ≥ 0.
        like: a tensor of the dtype and on the device of t.

    Returns:
        The K + 1 values, each of the structure of f's.
    """
    zero, one = like.new_zeros(()), like.new_ones(())

    def value(t: Tensor) -> tuple[Any]:
        with Elementary():
            return (function(t),)

    def derivatives(k: int) -> Callable[[Tensor], tuple[Any, ...]]:
        if k == 0:
            return value
        lower = derivatives(k - 1)

        def both(t: Tensor) -> tuple[Any, ...]:
            values, tangents = torch.func.jvp(lower, (t,), (one,))[:2]
            return (*values, tangents[-1])

        return both

    return list(derivatives(order)(zero))


def append_jvp(function: Callable[..., Tensor], num_base_args: int = 1) -> Callable[..., Tensor]:
    """(x, …, d₁, …, d_k, d) ↦ the derivative of function(x, …, d₁, …, d_k) with respect to x along d.

    It can be repeated: each application adds one direction at the end of the arguments, so that k of them give the
    k-th directional derivative D^k f(x)[d₁, …, d_k].

    Args:
        function: differentiable in its first argument x.
        num_base_args: how many of its first arguments are differentiated together, each along its own direction, ≥ 1.

    Returns:
        The function of one (or num_base_args) more direction.

    Source: Giordano, `_append_jvp` of vittles (2019).
    """

    def with_direction(*arguments: Any) -> Tensor:
        given, directions = arguments[:-num_base_args], arguments[-num_base_args:]
        base, rest = given[:num_base_args], given[num_base_args:]

        def at(*x: Tensor) -> Tensor:
            with Elementary():
                return function(*x, *rest)

        return torch.func.jvp(at, base, directions)[1]

    return with_direction
