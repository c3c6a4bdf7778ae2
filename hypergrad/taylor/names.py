"""The functions of PyTorch by name, as they are met in `__torch_function__`."""

from collections.abc import Callable

import torch

_NAMESPACES = (torch, torch.Tensor, torch.nn.functional, torch.special, torch.linalg, torch._C._nn)  # type: ignore[attr-defined]


class CannotExpandError(Exception):
    """The polynomial arithmetic does not reach this far; the message names the operation."""


def functions_named(*names: str | Callable) -> list[Callable]:
    """All functions and methods of these names, or a function itself; a property is met as a call of its getter."""
    found: list[Callable] = [name for name in names if callable(name)]
    for name in names:
        if isinstance(name, str):
            found += [getattr(space, name) for space in _NAMESPACES if hasattr(space, name)]
    return [function.__get__ if hasattr(function, "__set__") else function for function in found]
