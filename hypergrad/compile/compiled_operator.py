"""Operators whose products, and whole iterations around them, run through torch.compile."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.compile.linear_trace import LinearTrace
from hypergrad.compile.torch_compile import compile_checked
from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.operator import Operator

_COMPILED = WeakCache[Callable[..., Any]]()
"""Compiled functions by problem, trace and function."""


def compile_operator(
    operator: Operator, problem: object, key: Any, trace: LinearTrace, shared: list[Tensor]
) -> Operator:
    """The operator of a trace, compiled; or the operator as it is, with the reason in its name.

    Args:
        operator: its matvec is `trace.product(*shared, v)`.
        problem: the trace belongs to it.
        key: what the trace holds for.
        trace: the trace.
        shared: what its products at this point share.
    """
    n = sum(torch.Size(shape).numel() for shape in operator.shapes or ())
    v = torch.ones(n, dtype=operator.dtype, device=shared[0].device if shared else None)
    around = _Around(problem, key, trace, shared)
    try:
        product = around.find("product", trace.product, (*shared, v))
    except CannotCompileError as error:
        return replace(operator, name=f"{operator.name}, not compiled ({error})")
    name = f"{operator.name}, compiled"
    return replace(operator, matvec=lambda v: product(*shared, v), compile=around.compile, name=name)


@dataclass(frozen=True)
class _Around:
    """Compiles functions that call the product of a trace; for the fields see `compile_operator`."""

    problem: object
    key: Any
    trace: LinearTrace
    shared: list[Tensor]

    def find(self, name: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """The compiled function of this name, made at the first call.

        Also raised, by what it calls: CannotCompileError if there is none.
        """
        return _COMPILED.get(self.problem, (self.key, name), lambda: compile_checked(function, arguments))

    def compile(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """(*tensors) ↦ f(v ↦ A v, *tensors), compiled where that is possible; see `Operator.compile`."""
        product = self.trace.product

        def plain(shared: list[Tensor], *tensors: Tensor) -> Any:
            return f(lambda v: product(*shared, v), *tensors)

        def run(*tensors: Tensor) -> Any:
            try:
                shapes = tuple(tensor.shape for tensor in tensors)
                return self.find((f, shapes), plain, (self.shared, *tensors))(self.shared, *tensors)
            except CannotCompileError:
                return plain(self.shared, *tensors)

        return run
