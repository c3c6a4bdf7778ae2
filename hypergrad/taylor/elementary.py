"""Functions with wrong higher derivatives in PyTorch: computed by elementary operations, or refused."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hypergrad.core.autodiff import base_of
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
"""Functions whose derivatives by forward mode, differentiated again, are silently wrong in torch 2.13."""


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
        NotImplementedError: (within the context) if forward mode over a function of linear algebra, whose second
            derivatives torch has silently wrong then, is differentiated again.
    """

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WRONG and _differentiates_forward_mode((*args, *(kwargs or {}).values())):
            raise NotImplementedError(
                f"PyTorch's derivatives of {_WRONG[func]} by nested forward mode are wrong from the second order on, "
                "and so are those by reverse mode over forward mode. Use TaylorExpansion, or reverse mode (jacrev, "
                "grad) for all orders but the last, outermost one."
            )
        rule = _COMPOSED.get(func)
        if rule is not None:
            try:
                return applied(rule, func, args, kwargs)
            except CannotExpandError:  # with these arguments
                pass
        return func(*args, **(kwargs or {}))


def _differentiates_forward_mode(arguments: Iterable[Any]) -> bool:
    """Whether a transform of forward mode is active, and a derivative is taken outside of it."""
    kinds = [interpreter.key() for interpreter in retrieve_all_functorch_interpreters()]  # from the outermost one
    if TransformType.Jvp not in kinds:
        return False
    while kinds.pop() != TransformType.Jvp:
        pass
    if any(kind in (TransformType.Jvp, TransformType.Grad) for kind in kinds):
        return True
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and base_of(x).requires_grad for x in arguments)
