"""Taylor rules of the sums over processes."""

from collections.abc import Callable

from torch import Tensor

from hypergrad.core.collectives import total, vary, vary_filled
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of, rule_for


@rule_for(vary, vary_filled, total)
def each_coefficient(func: Callable, group: str, *tensors: Tensor) -> tuple[Polynomial, ...]:
    """The coefficients of all tensors, each of which the function maps by itself, in one call."""
    degree = degree_of(*tensors)
    parts = [coefs_of(x, degree) for x in tensors]
    images = iter(func(group, *(c for part in parts for c in part if c is not None)))
    return tuple(Polynomial([None if c is None else next(images) for c in part]) for part in parts)
