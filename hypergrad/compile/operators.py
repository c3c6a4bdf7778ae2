"""Traces through torch.compile: the product, and whole iterations around it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.compile.linear import Trace
from hypergrad.compile.tracing import CannotCompileError, compiled
from hypergrad.core.operator import Operator

_COMPILED = WeakCache[Callable[..., Any]]()
"""Compiled functions by problem, trace and function."""


def with_compiled(operator: Operator, problem: object, key: Any, trace: Trace, shared: list[Tensor]) -> Operator:
    """The operator of a trace, compiled; or itself, with the reason in its name.

    Args:
        operator: its matvec is `trace.product(*shared, v)`.
        problem: to which the trace belongs.
        key: what the trace holds for.
        trace: the trace.
        shared: what its products at this point share.
    """

    def found(name: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
        return _COMPILED.get(problem, (key, name), lambda: compiled(function, arguments))

    def compile(f: Callable[..., Any]) -> Callable[..., Any]:
        def around(shared: list[Tensor], *tensors: Tensor) -> Any:
            return f(lambda v: trace.product(*shared, v), *tensors)

        def run(*tensors: Tensor) -> Any:
            try:
                shapes = tuple(tensor.shape for tensor in tensors)
                return found((f, shapes), around, (shared, *tensors))(shared, *tensors)
            except CannotCompileError:
                return around(shared, *tensors)

        return run

    n = sum(torch.Size(shape).numel() for shape in operator.shapes or ())
    v = torch.ones(n, dtype=operator.dtype, device=shared[0].device if shared else None)
    try:
        product = found("product", trace.product, (*shared, v))
    except CannotCompileError as error:
        return replace(operator, name=f"{operator.name}, not compiled ({error})")
    return replace(operator, matvec=lambda v: product(*shared, v), compile=compile, name=f"{operator.name}, compiled")
