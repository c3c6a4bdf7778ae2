"""Products with a traced linearisation."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.compile.compiled_operator import compile_operator, compile_shared
from hypergrad.compile.linear_trace import LinearTrace, cast, trace_linear
from hypergrad.compile.packed import Packed
from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.autodiff import Tensors, flatten, leaves, vjp
from hypergrad.core.flops import FlopCounter
from hypergrad.core.operator import CannotApproximateError, Operator, columns_of
from hypergrad.core.validation import require_instance, require_real
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Product, Stationarity
from hypergrad.product.reverse import Reverse

_PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "auto": None}
_LARGE_FLOPS = 1e8
"""From here on single precision saves more time than the iterations that its rounding adds, as measured on a CPU."""
_TRACES = WeakCache[LinearTrace]()
"""Traces by problem, and by everything else on which they depend."""
_FLOPS = WeakCache[int]()
"""Operations of one product, by problem."""


@dataclass(frozen=True, kw_only=True)
class Traced(Product):
    """Exact products, and a trace of them on which the Krylov solvers iterate.

    The trace is a plain list of the tensor operations that depend on v, without a forward pass or a graph, in single
    precision if it is large. It is about twice as fast as reverse mode on a CPU. It is made once for a
    problem, and holds a copy of its data in that precision. The solvers check it with one exact product after
    each cycle of iterations. If the residual is not the one that the trace predicted (the problem's data changed, its
    loss branches on values, the precision is too low), they go on without the trace and report that in
    `stats["adjoint_remark"]`.

    Attributes:
        precision: of the traced products, "float32", "float64", or "auto". "auto" is single precision if a product
            needs 1e8 operations or more, where it halves the time. Below, the iterations added by rounding cost more.
        exact: how the exact products are formed.
        compile: run the trace through torch.compile, and several iterations of CG at a time. It requires a C++
            compiler, and half a minute once for a problem. If it fails, or the first result differs, the trace is run
            as it is.
        least_flops: a product of fewer floating-point operations is not traced, because tracing takes seconds; ≥ 0.

    Source: on iterative refinement, Higham, "Accuracy and stability of numerical algorithms", SIAM (2002).
    """

    precision: str = "auto"
    exact: Product = field(default_factory=Reverse)
    compile: bool = False
    least_flops: float = 0.0

    def __post_init__(self) -> None:
        require_instance(self, "exact", Product)
        require_real(self, "least_flops", least=0)
        if self.precision not in _PRECISIONS:
            raise ValueError(f"Traced.precision must be float32, float64 or auto, but it is {self.precision!r}.")

    @property
    def reference(self) -> Product:
        reference = self.exact.reference
        return self if reference is self.exact else reference

    def linearize(self, oracle: Oracle, params: Tensors) -> Stationarity:
        exact = self.exact.linearize(oracle, params)
        approximate = partial(self._approximate, oracle, params, exact)
        return replace(exact, product=replace(exact.product, approximate=approximate))

    @torch.no_grad()
    def _approximate(self, oracle: Oracle, params: Tensors, exact: Stationarity) -> Operator:
        """The trace as an operator.

        Raises:
            CannotApproximateError: if the product cannot be traced, or is too small to trace.
        """
        if oracle.parts() is not None:
            raise CannotApproximateError("the inner batch is computed in parts, all of which a trace would keep")
        if oracle.problem.is_spread:
            raise CannotApproximateError("several processes share the problem, and each would trace its own part")
        flops = _flops(oracle.problem, exact)
        if flops < self.least_flops:
            raise CannotApproximateError(f"a product takes no more than {flops:.1e} operations")
        dtype = _PRECISIONS[self.precision] or (torch.float32 if flops >= _LARGE_FLOPS else exact.phi.dtype)
        key, point, trace = _trace(oracle, params, dtype)
        if self.compile:
            shared = compile_shared(oracle.problem, key, trace, point, dtype)
        else:
            shared = [cast(value, dtype) for value in trace.prepare(*point)]
        near = replace(
            exact.product,
            matvec=lambda v: trace.product(*shared, v),
            columns=columns_of(lambda v: trace.product(*shared, v)),
            dtype=dtype,
            name=f"a trace of the product in {str(dtype).removeprefix('torch.')}",
            approximate=None,
        )
        return compile_operator(near, oracle.problem, key, trace, shared) if self.compile else near


def _flops(problem: InnerProblem, exact: Stationarity) -> int:
    """Floating-point operations of the matrix products in one product, counted once for a problem."""

    def count() -> int:
        with FlopCounter() as counter:
            exact.product(exact.phi)
        return counter.total

    return _FLOPS.get(problem, None, count)


def _trace(oracle: Oracle, params: Tensors, dtype: torch.dtype) -> tuple[Any, list[Tensor], LinearTrace]:
    """The key of the trace, the tensors of the point, and the trace.

    Raises:
        CannotApproximateError: if the product cannot be traced.
    """
    problem, point = oracle.problem, Packed.of((params, oracle.hparams, oracle.batch))
    key = (dtype, point.key)

    def product(*arguments: Tensor) -> Tensor:
        *tensors, v = arguments
        w, hp, inner_batch = point.unpack(tensors)
        w = leaves(w)
        with torch.enable_grad():
            _, phi = Oracle(problem, hp, inner_batch).loss_and_optimality(w)
            return vjp(flatten(phi), w)(v)

    def make() -> LinearTrace:
        return trace_linear(product, point.tensors, flatten(params).detach(), dtype)

    try:
        return key, point.tensors, _TRACES.get(problem, key, make)
    except CannotCompileError as error:
        raise CannotApproximateError(f"the product cannot be traced: {error}") from error
