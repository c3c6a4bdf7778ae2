"""Operators whose products, and whole iterations around them, run through torch.compile."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.compile.cuda_graph import replaying
from hypergrad.compile.inductor import InductorProgram, compile_with_inductor
from hypergrad.compile.linear_trace import LinearTrace, cast
from hypergrad.compile.shared_matrices import SharedMatrices
from hypergrad.compile.thin_products import is_narrow, turn_thin_products
from hypergrad.compile.torch_compile import compile_checked, require_same
from hypergrad.compile.tracing import CannotCompileError, in_one_line
from hypergrad.compile.tracing import trace as trace_operations
from hypergrad.core.operator import Operator

_COMPILED = WeakCache[Callable[..., Any]]()
"""Compiled functions by problem, trace and function."""
_PROGRAMS = WeakCache[InductorProgram]()
"""Compiled iterations by problem, trace, function and layout of the arguments."""


def compile_shared(
    problem: object, key: Any, trace: LinearTrace, point: list[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """What the products of a trace share at a point, in `dtype`, from compiled code where that is possible.

    Matrices of few columns get transposed strides, as the products with which they are combined have them.

    Args:
        problem: the trace belongs to it.
        key: what the trace holds for.
        trace: the trace.
        point: the arguments of `trace.prepare`.
        dtype: of the products.
    """

    def columns_first(*tensors: Tensor) -> list[Tensor]:
        values = [cast(value, dtype) for value in trace.prepare(*tensors)]
        return [value.t() if is_narrow(value.shape) else value for value in values]

    def make() -> InductorProgram:
        traced = trace_operations(columns_first, late)
        turn_thin_products(traced)
        return _compiled(traced, [], late)

    late = tuple(x.detach().contiguous() for x in point)
    try:
        program = _PROGRAMS.get(problem, (key, "shared"), make)
        run: Callable[..., Any] = torch.no_grad()(partial(program.run, *program.prepare()))
    except CannotCompileError:
        run = columns_first
    narrow = [is_narrow(shape) for shape in trace.shapes]
    return [x.t() if turned else x for x, turned in zip(run(*late), narrow, strict=True)]


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
        ready: dict[Any, Callable[..., Any]] = {}

        def run(*tensors: Tensor) -> Any:
            layout = tuple((x.shape, x.stride()) for x in tensors)
            if layout not in ready:
                ready[layout] = self._program(f, layout, tensors)
            return ready[layout](*tensors)

        return run

    def _program(self, f: Callable[..., Any], layout: Any, tensors: tuple[Tensor, ...]) -> Callable[..., Any]:
        product, shared = self.trace.product, [x.detach() for x in self.shared]

        def plain(*both: Tensor) -> Any:
            with SharedMatrices():
                return f(lambda v: product(*both[: len(shared)], v), *both[len(shared) :])

        key = (self.key, f, layout, tuple((x.shape, x.stride()) for x in shared))
        try:
            program = _PROGRAMS.get(self.problem, key, lambda: _compiled(plain, shared, tensors))
        except CannotCompileError:
            return partial(plain, *shared)
        return torch.no_grad()(replaying(program.run, program.prepare(*shared), program.constants))


def _compiled(function: Callable[..., Any], early: list[Tensor], late: tuple[Tensor, ...]) -> InductorProgram:
    """A function of tensors compiled without guards, whose first result is checked against the function itself.

    Raises:
        CannotCompileError: if it cannot be compiled.

    Also raised, by what it calls: CannotCompileError if the first result differs.
    """
    program = compile_with_inductor(trace_operations(function, [*early, *late]), early, late)
    try:
        with torch.no_grad():
            both = program.run(*program.prepare(*early), *late), function(*early, *late)
    except Exception as error:  # a compiler may raise anything
        raise CannotCompileError(in_one_line(error)) from error
    require_same(*both)
    return program
