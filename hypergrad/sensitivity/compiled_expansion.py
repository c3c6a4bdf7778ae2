"""All terms of a Taylor series as one compiled function."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.compile.inductor import SHORT_CALLS, InductorProgram, compile_with_inductor
from hypergrad.compile.packed import Packed
from hypergrad.compile.tracing import CannotCompileError, trace
from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.errors import NotCompiledWarning
from hypergrad.problem.distributed.sharing import require_one_process
from hypergrad.sensitivity.condition import Condition, require_finite_coefficients
from hypergrad.sensitivity.optimum import Optimum

Terms = Callable[[Tensors], list[Tensor]]
"""δ by name ↦ the terms w₁, …, w_K, each of shape (n,) or (m, n)."""

_LARGEST_DENSE = 2000
"""Parameters up to which the inverse is formed. A judgement: 32 MB in float64, about a second."""
_COMPILED = WeakCache[InductorProgram]()
"""Compiled functions by inner problem or function, order, and the shapes of point and direction."""


@torch.no_grad()
def compile_terms(optimum: Optimum, order: int, direction: Tensors) -> Terms:
    """The terms of the series as one compiled function, for directions of these shapes.

    It is checked against `optimum.terms` along this direction. If it cannot be made or differs, that function is
    returned, with a warning that says why.
    """

    def plain(direction: Tensors) -> list[Tensor]:
        return optimum.terms(direction, order)

    try:
        run = _program(optimum, order, direction)
        _require_same(run(direction), plain(direction))
    except CannotCompileError as error:
        warnings.warn(
            f"The Taylor expansion is not compiled, and runs as it is: {error}.", NotCompiledWarning, stacklevel=5
        )
        return plain
    return run


def _program(optimum: Optimum, order: int, direction: Tensors) -> Terms:
    """The compiled terms, from an earlier call if there was one.

    Raises:
        CannotCompileError: if they cannot be compiled.
    """
    require_one_process(optimum.condition.problem)
    n = flatten(optimum.params).numel()
    if n > _LARGEST_DENSE:
        raise CannotCompileError(
            f"the inverse Hessian is formed for at most {_LARGEST_DENSE} parameters, and there are {n}"
        )
    point = Packed.of((optimum.params, optimum.hparams, optimum.condition.batch))
    inverse = optimum.solve(torch.eye(n, dtype=point.tensors[0].dtype, device=point.tensors[0].device))
    key = (order, point.key, tuple(value.shape for value in direction.values()))
    function = _COMPILED.get(optimum.inner, key, lambda: _trace_and_compile(optimum, order, direction, inverse, point))

    with torch.no_grad():
        shared = function.prepare(inverse, *point.tensors)

    def run(direction: Tensors) -> list[Tensor]:
        with torch.no_grad():
            *terms, largest = function.run(*shared, *direction.values())
        require_finite_coefficients(largest)
        return terms

    return run


def _trace_and_compile(
    optimum: Optimum, order: int, direction: Tensors, inverse: Tensor, point: Packed
) -> InductorProgram:
    """(inverse, *point) and (*δ) ↦ the terms, each of shape (n,) or (m, n), and their largest entry, compiled.

    Also raised, by what it calls: CannotCompileError if it cannot be.
    """
    problem, names = optimum.condition.problem, list(direction)

    def terms(inverse: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        split = len(point.tensors)
        params, hparams, batch = point.unpack(tensors[:split])
        along = dict(zip(names, tensors[split:], strict=True))
        condition = Condition(problem, batch, params)
        path = condition.path(flatten(params), hparams, along, order, lambda rest: rest @ inverse.T)
        return *path, torch.linalg.vector_norm(torch.stack(path), torch.inf)

    early, late = [inverse, *point.tensors], list(direction.values())
    traced = trace(terms, [*early, *late])
    return compile_with_inductor(traced, early, late, SHORT_CALLS)


def _require_same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Require that each term is equal to √ε, or to rounding where a term is zero.

    Raises:
        CannotCompileError: if one differs.
    """
    eps = torch.finfo(wanted[0].dtype).eps
    largest = max(torch.linalg.vector_norm(term).item() for term in wanted)
    for k, (a, b) in enumerate(zip(found, wanted, strict=True), start=1):
        off = torch.linalg.vector_norm(a - b).item()
        if not off <= eps**0.5 * torch.linalg.vector_norm(b).item() + 1e3 * eps * largest:
            raise CannotCompileError(f"its first term {k} was off by {off:.1e}")
