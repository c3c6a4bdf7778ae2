"""The functions of PyTorch by name, as `__torch_function__` receives them."""

import inspect
from collections.abc import Callable
from typing import Any

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


def name_of(function: Callable) -> str:
    """The name without its namespace: "log1p" for `torch.special.log1p`, whose own is "special_log1p"."""
    name = getattr(function, "__name__", str(function))
    return name.removeprefix("special_").removeprefix("linalg_")


def applied(rule: Callable[..., Any], func: Callable, args: Any, kwargs: Any) -> Any:
    """The result of a rule for a function of PyTorch with these arguments.

    Raises:
        CannotExpandError: if the rule does not know one of the keywords; or (from the rule) if it is not for them.
    """
    try:
        return rule(func, *args, **kwargs) if kwargs else rule(func, *args)
    except TypeError:
        try:
            inspect.signature(rule).bind(func, *args, **(kwargs or {}))
        except TypeError as error:
            raise CannotExpandError(f"{name_of(func)} with these arguments") from error
        raise
