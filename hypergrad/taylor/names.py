"""The functions of PyTorch by name, as `__torch_function__` receives them."""

from collections.abc import Callable

import torch

from hypergrad.core.torch_internals.operations import NN_OPERATIONS

_NAMESPACES = (torch, torch.Tensor, torch.nn.functional, torch.special, torch.linalg, NN_OPERATIONS)


class CannotExpandError(Exception):
    """The polynomial arithmetic has no rule for an operation; the message names it."""


def functions_named(*names: str | Callable) -> list[Callable]:
    """All functions and methods of these names, or a function itself; for a property its getter."""
    found: list[Callable] = [name for name in names if callable(name)]
    for name in names:
        if isinstance(name, str):
            found += [getattr(space, name) for space in _NAMESPACES if hasattr(space, name)]
    return [function.__get__ if hasattr(function, "__set__") else function for function in found]
