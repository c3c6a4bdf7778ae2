"""Tensors by name, from the structure in which the caller holds them, and back."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors


def by_name(argument: str, given: Any) -> tuple[Tensors, Callable[[Tensors], Any]]:
    """The tensors by name, and the map back to the caller's structure.

    Raises:
        TypeError: if it is not a tensor, list, tuple or mapping, or holds anything but dense floating-point tensors.
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
            f"{type(given).__name__}{_remedy(given)}."
        )
    if not named:
        raise ValueError(
            f"{argument} must hold at least 1 tensor, but it holds 0; give those that are differentiated, of a module "
            "such as dict(module.named_parameters())."
        )
    for name, value in named.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            met = f"dtype {value.dtype}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
            raise TypeError(
                f"{argument} must hold floating-point tensors, but {name!r} is of {met}; keep what is not "
                "differentiated, such as buffers, inside the losses."
            )
        if value.is_meta:
            raise TypeError(f"{argument} must hold values, but {name!r} is on the device meta, which has none.")
        if value.layout != torch.strided:
            raise TypeError(
                f"{argument} must hold dense tensors, but {name!r} has the layout {value.layout}; use to_dense()."
            )
    return named, back


def _remedy(given: Any) -> str:
    if isinstance(given, type):
        return f", the class {given.__name__}; make an object of it"
    return (
        "; read it into a list"
        if isinstance(given, Iterable) and not isinstance(given, str)
        else "; write torch.tensor(…)"
    )


def numbers_as_tensors(given: Any, like: Tensor | None) -> tuple[Any, Callable[[Any], Any]]:
    """The structure with its numbers as tensors of shape (), and the map of tensors in it to floats at their places.

    Args:
        given: a number, a list, tuple or mapping that may hold numbers, or anything else, which is returned as it is.
        like: gives dtype and device.
    """

    def convert(x: Any) -> Any:
        is_number = isinstance(x, int | float) and not isinstance(x, bool) and like is not None
        return torch.tensor(float(x), dtype=like.dtype, device=like.device) if is_number else x  # type: ignore[union-attr]

    def same(x: Any, value: Any) -> Any:
        return value if isinstance(x, Tensor) else float(value)

    if isinstance(given, Mapping):
        return (
            {name: convert(x) for name, x in given.items()},
            lambda found: {name: same(given[name], value) for name, value in found.items()},
        )
    if isinstance(given, list | tuple):
        make = getattr(given, "_make", type(given))
        return (
            make([convert(x) for x in given]),
            lambda found: make([same(x, value) for x, value in zip(given, found, strict=True)]),
        )
    return convert(given), lambda found: same(given, found)
