"""Checks of what the methods of a problem return."""

from typing import Any

import torch
from torch import Tensor


def require_scalar(value: Any, name: str) -> Tensor:
    """The given loss, after a check that it is a tensor with one entry.

    Raises:
        TypeError: if it is not a tensor, or a complex or sparse one.
        ValueError: if it has another shape.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must return a tensor of shape (), but it returned {value!r} of {type(value).__name__}."
        )
    if value.is_complex() or value.layout != torch.strided:
        raise TypeError(
            f"{name} must return a dense tensor of real numbers, but its dtype is {value.dtype} and its layout "
            f"{value.layout}; take its .real, or its to_dense()."
        )
    if value.numel() != 1:
        raise ValueError(
            f"{name} must return a tensor of shape (), but it returned one of shape {tuple(value.shape)}; take "
            "its mean or sum."
        )
    return value


def require_dict(value: Any, kind: type, promise: str) -> None:
    """Require a dict whose values are of a kind.

    Raises:
        TypeError: if it is something else; the message begins with `promise`.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{promise}, but it returned a {type(value).__name__}.")
    for name, entry in value.items():
        if not isinstance(entry, kind):
            raise TypeError(f"{promise}, but {name!r} is a {type(entry).__name__}.")
