"""Functions whose derivatives by forward mode PyTorch lacks or has wrong, by elementary operations instead."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from hypergrad.taylor.names import functions_named

_COMPOSED: dict[Callable, Callable[..., Any]] = {}


def composed_of_elementary(*names: str) -> Callable[[Callable], Callable]:
    """Register a rule that is right for tensors too, and needs no forward-mode derivative but elementary ones."""

    def register(rule: Callable) -> Callable:
        for function in functions_named(*names):
            _COMPOSED[function] = rule
        return rule

    return register


class Elementary(TorchFunctionMode):
    """A context in which such functions are computed by elementary operations, so that forward mode may be nested.

    In torch 2.13 a nested `torch.func.jvp` through `layer_norm` is silently wrong from the second order on, and
    forward mode over reverse mode through `mse_loss` fails ("ZeroTensors are immutable").
    """

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _COMPOSED.get(func)
        return func(*args, **(kwargs or {})) if rule is None else rule(func, *args, **(kwargs or {}))
