"""Functions with wrong higher derivatives in PyTorch: computed by elementary operations, or refused."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hypergrad.core.torch_internals.transforms import TransformType, retrieve_all_functorch_interpreters
from hypergrad.taylor.names import CannotExpandError, applied, functions_named

_COMPOSED: dict[Callable, Callable[..., Any]] = {}
_WRONG = {
    function: name
    for name in (
        *("solve", "solve_ex", "tensorsolve", "triangular_solve", "slogdet", "logdet", "det", "cholesky_inverse"),
        *("householder_product", "native_layer_norm", "native_batch_norm"),
    )
    for function in functions_named(name)
} | {torch.batch_norm: "torch.batch_norm", torch.instance_norm: "torch.instance_norm"}
"""Functions whose derivatives by nested forward mode are silently wrong from order 2 on, in torch 2.13."""


def composed_of_elementary(*names: str | Callable) -> Callable[[Callable], Callable]:
    """Register a rule that is right for tensors too; its forward-mode derivatives are of elementary operations."""

    def register(rule: Callable) -> Callable:
        for function in functions_named(*names):
            _COMPOSED[function] = rule
        return rule

    return register


class Elementary(TorchFunctionMode):
    """A context in which derivatives are right in any nesting, or are refused.

    In torch 2.13 the derivatives of normalisations are silently wrong from order 2 on in forward mode, and from order 3
    on in reverse mode. Those of losses fail in forward mode over reverse mode ("ZeroTensors are immutable"). Here, both
    are computed by elementary operations.

    Raises:
        NotImplementedError: (within the context) if forward mode is nested over a function of linear algebra whose
            second derivatives are silently wrong in torch.
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
                return applied(rule, func, args, kwargs)
            except CannotExpandError:  # with these arguments
                pass
        return func(*args, **(kwargs or {}))


def _nestings() -> int:
    """How many transforms of forward mode are active."""
    return sum(interpreter.key() == TransformType.Jvp for interpreter in retrieve_all_functorch_interpreters())
