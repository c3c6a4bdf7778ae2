"""Functions of which PyTorch has higher derivatives wrong: by elementary operations, or not at all."""

from collections.abc import Callable
from typing import Any

import torch
from torch._functorch.pyfunctorch import (
    TransformType,  # type: ignore[reportPrivateImportUsage]
    retrieve_all_functorch_interpreters,
)
from torch.overrides import TorchFunctionMode

from hypergrad.taylor.names import CannotExpandError, functions_named

_COMPOSED: dict[Callable, Callable[..., Any]] = {}
_WRONG = {
    function: name
    for name in (
        *("solve", "solve_ex", "tensorsolve", "triangular_solve", "slogdet", "logdet", "det", "cholesky_inverse"),
        *("householder_product", "native_layer_norm", "native_batch_norm"),
    )
    for function in functions_named(name)
} | {torch.batch_norm: "torch.batch_norm", torch.instance_norm: "torch.instance_norm"}
"""What nested forward mode of torch 2.13 has silently wrong from the second order on."""


def composed_of_elementary(*names: str | Callable) -> Callable[[Callable], Callable]:
    """Register a rule that is right for tensors too, and needs no forward-mode derivative but elementary ones."""

    def register(rule: Callable) -> Callable:
        for function in functions_named(*names):
            _COMPOSED[function] = rule
        return rule

    return register


class Elementary(TorchFunctionMode):
    """A context in which derivatives are right however they are nested, or are refused.

    In torch 2.13 those of normalisations are silently wrong from the second order on in forward mode and from the third
    on in reverse mode, and those of losses fail where forward mode passes over reverse mode ("ZeroTensors are
    immutable"): both are computed by elementary operations.

    Raises:
        NotImplementedError: (within it) where forward mode is nested over a function of linear algebra, of which torch
            has the second derivatives silently wrong.
    """

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WRONG and _nestings() > 1:
            raise NotImplementedError(
                f"PyTorch's derivatives of {_WRONG[func]} by nested forward mode are wrong from the second order on. "
                "Use TaylorExpansion, or reverse mode (jacrev, grad) for all orders but one."
            )
        rule = _COMPOSED.get(func)
        if rule is not None:
            try:
                return rule(func, *args, **(kwargs or {}))
            except CannotExpandError:  # with these arguments
                pass
        return func(*args, **(kwargs or {}))


def _nestings() -> int:
    """How many transforms of forward mode are at work."""
    return sum(interpreter.key() == TransformType.Jvp for interpreter in retrieve_all_functorch_interpreters())
