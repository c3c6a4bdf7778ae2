"""Tensors by name, from the structure in which the caller holds them, and back."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors


def by_name(argument: str, given: Any) -> tuple[Tensors, Callable[[Tensors], Any]]:
    """The tensors by name, and the map back to the caller's structure.

    Raises:
        TypeError: if it is not a tensor, list, tuple or mapping, or holds anything but floating-point tensors.
        ValueError: if it is empty.
    """
    if isinstance(given, Tensor):
        named, back = {argument: given}, lambda tensors: tensors[argument]
    elif isinstance(given, Mapping):
        named, back = dict(given), dict
    elif isinstance(given, list | tuple):
        make = getattr(given, "_make", type(given))  # a named tuple is made by _make
        named, back = {str(i): tensor for i, tensor in enumerate(given)}, lambda tensors: make(tensors.values())
    else:
        raise TypeError(
            f"{argument} must be a tensor, a list or tuple of tensors, or a dict of tensors by name, but it is a "
            f"{type(given).__name__}."
        )
    if not named:
        raise ValueError(f"{argument} must hold at least 1 tensor, but it holds 0.")
    for name, value in named.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            met = f"dtype {value.dtype}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
            raise TypeError(
                f"{argument} must hold floating-point tensors, but {name!r} is of {met}; keep what is not "
                "differentiated, such as buffers, inside the losses."
            )
    return named, back
