"""The functions of PyTorch by name, as they are met in `__torch_function__`."""

from collections.abc import Callable

import torch

_NAMESPACES = (torch, torch.Tensor, torch.nn.functional, torch.special, torch.linalg, torch._C._nn)  # type: ignore[attr-defined]


def functions_named(*names: str) -> list[Callable]:
    """All functions and methods of these names; a property is met as the call of its getter."""
    found = [getattr(space, name) for name in names for space in _NAMESPACES if hasattr(space, name)]
    return [function.__get__ if hasattr(function, "__set__") else function for function in found]
