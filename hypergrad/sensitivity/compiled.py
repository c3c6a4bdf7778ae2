"""All terms of a Taylor series as one compiled function."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hypergrad.compile.lowering import Lowered, lowered
from hypergrad.compile.packed import Packed
from hypergrad.compile.tracing import CannotCompileError, trace
from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.errors import NotCompiledWarning
from hypergrad.sensitivity.condition import Condition, require_finite_coefficients
from hypergrad.sensitivity.optimum import Optimum

Terms = Callable[[Tensors], list[Tensor]]
"""δ by name ↦ the terms w₁, …, w_K, each of shape (n,) or (m, n)."""

_LARGEST_DENSE = 2000
_COMPILED: "WeakKeyDictionary[Any, dict[Any, Lowered | str]]" = WeakKeyDictionary()
"""Compiled functions by what was given as the inner problem, and by what else they hold for; or why there is none."""


@torch.no_grad()
def compiled_terms(optimum: Optimum, order: int, direction: Tensors) -> Terms:
    """The terms of the series as one compiled function, for directions of these shapes.

    It is held against `optimum.terms` along this one; where it cannot be made, or differs, that is returned, with a
    warning that says why.
    """

    def plain(direction: Tensors) -> list[Tensor]:
        return optimum.terms(direction, order)

    try:
        run = _compiled(optimum, order, direction)
        _require_same(run(direction), plain(direction))
    except CannotCompileError as error:
        warnings.warn(
            f"The Taylor expansion runs as it is, and is not compiled: {error}.", NotCompiledWarning, stacklevel=5
        )
        return plain
    return run


def _compiled(optimum: Optimum, order: int, direction: Tensors) -> Terms:
    """The compiled terms, from an earlier time where there was one.

    Raises:
        CannotCompileError: if there is no way to compile them.
    """
    n = flatten(optimum.params).numel()
    if n > _LARGEST_DENSE:
        raise CannotCompileError(f"the inverse Hessian of {n} parameters is not formed, of {_LARGEST_DENSE} at most")
    point = Packed.of((optimum.params, optimum.hparams, optimum.condition.batch))
    inverse = optimum.solve(torch.eye(n, dtype=point.tensors[0].dtype, device=point.tensors[0].device))
    try:
        known = _COMPILED.setdefault(optimum.inner, {})
    except TypeError:  # it cannot be referred to weakly
        known = {}
    key = (order, point.key, tuple(value.shape for value in direction.values()))
    if key not in known:
        try:
            known[key] = _made(optimum, order, direction, inverse, point)
        except CannotCompileError as error:
            known[key] = str(error)
    function = known[key]
    if isinstance(function, str):
        raise CannotCompileError(function)

    with torch.no_grad():
        shared = function.prepare(inverse, *point.tensors)

    def run(direction: Tensors) -> list[Tensor]:
        with torch.no_grad():
            *terms, largest = function.run(*shared, *direction.values())
        require_finite_coefficients(largest)
        return terms

    return run


def _made(optimum: Optimum, order: int, direction: Tensors, inverse: Tensor, point: Packed) -> Lowered:
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
    return lowered(traced, early, late)


def _require_same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Require each term to the square root of the precision, and what rounding leaves of a term that is zero.

    Raises:
        CannotCompileError: if one is another.
    """
    eps = torch.finfo(wanted[0].dtype).eps
    largest = max(torch.linalg.vector_norm(term).item() for term in wanted)
    for k, (a, b) in enumerate(zip(found, wanted, strict=True), start=1):
        off = torch.linalg.vector_norm(a - b).item()
        if not off <= eps**0.5 * torch.linalg.vector_norm(b).item() + 1e3 * eps * largest:
            raise CannotCompileError(f"its first term {k} was off by {off:.1e}")
