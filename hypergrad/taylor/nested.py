"""Derivatives of any order along a direction, by nesting a derivative of first order."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.trees import tree_flatten, tree_unflatten
from hypergrad.taylor.elementary import Elementary


def nested_derivatives(function: Callable[[Tensor], Any], order: int, like: Tensor) -> list[Any]:
    """f(0), f′(0), …, f⁽ᴷ⁾(0) by K nestings of reverse mode, each with about four times as many operations.

    f′(t) is the derivative of the linear v ↦ (∂f/∂t)ᵀ v, so no forward-mode rule is needed. Several of those in torch
    2.13 (`linalg.solve`, `logdet`, …) are silently wrong when nested.

    Args:
        function: maps a tensor of shape () to any nesting of tensors; non-floating ones among them are constants.
        order: K ≥ 0.
        like: a tensor of the dtype and on the device of t.

    Returns:
        The K + 1 values, each in the structure of f.
    """
    structure: Any = None
    constants: list[Any] = []

    def floats(t: Tensor) -> tuple[Tensor, ...]:
        nonlocal structure, constants
        with Elementary():
            values, structure = tree_flatten(function(t))
        constants = [None if _is_float(value) else value for value in values]
        return tuple(value for value in values if _is_float(value))

    def whole(values: tuple[Tensor, ...]) -> Any:
        rest = iter(values)
        return tree_unflatten([next(rest) if value is None else value for value in constants], structure)

    found, derivative = [], floats
    for k in range(order + 1):
        # What is drawn at random, such as a mask, is the same at all orders.
        with torch.random.fork_rng([like.device] if like.is_cuda else [], enabled=k < order):
            found.append(derivative(like.new_zeros(())))
        if not found[0]:  # there are only constants
            return [whole(())] * (order + 1)
        if k < order:
            derivative = _derivative_of(derivative)
    return [whole(values) for values in found]


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _derivative_of(function: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """t ↦ f′(t)."""

    def derivative(t: Tensor) -> tuple[Tensor, ...]:
        values, vjp = torch.func.vjp(function, t)[:2]
        jvp = torch.func.vjp(lambda *v: vjp(v)[0], *(torch.zeros_like(value) for value in values))[1]
        return jvp(torch.ones_like(t))

    return derivative


def append_jvp(function: Callable[..., Tensor], num_base_args: int = 1) -> Callable[..., Tensor]:
    """(x, …, d₁, …, d_k, d) ↦ the derivative of function(x, …, d₁, …, d_k) with respect to x along d.

    It can be repeated: each application appends one direction to the arguments, so k of them give the k-th directional
    derivative D^k f(x)[d₁, …, d_k].

    Args:
        function: differentiable in its first argument x.
        num_base_args: number of first arguments to differentiate together, each along its own direction, ≥ 1.

    Returns:
        The function with one (or `num_base_args`) more directions.

    Raises:
        ValueError: if `num_base_args` is none of these.

    Also raised, by the result: TypeError or ValueError if its arguments and directions are no tensors of one shape.

    Source: Giordano, `_append_jvp` of vittles (2019).
    """
    if isinstance(num_base_args, bool) or not isinstance(num_base_args, int) or num_base_args < 1:
        raise ValueError(f"append_jvp's num_base_args must be an integer ≥ 1, but it is {num_base_args!r}.")

    def with_direction(*arguments: Any) -> Tensor:
        given, directions = arguments[:-num_base_args], arguments[-num_base_args:]
        base, rest = given[:num_base_args], given[num_base_args:]
        _require_tensors(base, directions, num_base_args)

        def at(*x: Tensor) -> Tensor:
            with Elementary():
                return function(*x, *rest)

        return torch.func.jvp(at, base, directions)[1]

    return with_direction


def _require_tensors(base: tuple[Any, ...], directions: tuple[Any, ...], count: int) -> None:
    """Require as many dense tensors as there are directions of their shapes.

    Raises:
        TypeError: if there are others, or fewer.
        ValueError: if a direction has another shape.
    """
    if len(base) < count:
        raise TypeError(f"append_jvp needs {count} arguments and {count} directions, but it met {len(base)} arguments.")
    for x, d in zip(base, directions, strict=True):
        for value in (x, d):
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
                met = f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"append_jvp differentiates by dense floating-point tensors, but it met {met}.")
        if x.shape != d.shape:
            raise ValueError(
                f"append_jvp needs a direction of shape {tuple(x.shape)}, as its argument, but it met {tuple(d.shape)}."
            )
