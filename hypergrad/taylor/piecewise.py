"""Taylor rules of piecewise functions; c₀ selects the piece."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of, rule_for


@rule_for("where")
def where(func: Callable, condition: Any, x: Any = None, y: Any = None) -> Polynomial:
    """x or y, entry by entry.

    Raises:
        CannotExpandError: if there are no values to choose from.
    """
    if func is Tensor.where:  # x.where(condition, y)
        condition, x = x, condition
    if x is None or y is None:
        raise CannotExpandError("where without values")
    degree = degree_of(x, y)
    pairs = zip(coefs_of(x, degree), coefs_of(y, degree), strict=True)
    return Polynomial(
        [None if a is None and b is None else torch.where(condition, 0 if a is None else a, 0 if b is None else b)
         for a, b in pairs]
    )  # fmt: skip


@rule_for("masked_fill")
def masked_fill(func: Callable, x: Any, mask: Tensor, value: Any) -> Polynomial:
    """x, with a number or a tensor where the mask is set."""
    return where(torch.where, mask, value, x)


@rule_for("maximum", "max", "minimum", "min", "amax", "amin")
def extremum(func: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """The branch that c₀ selects, of two tensors or among all entries; the mean of all branches that are equal there.

    Raises:
        CannotExpandError: along a dimension.
    """
    if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:
        y = args[0]
        x0, y0 = _value(x), _value(y)
        ahead = x0 > y0 if "max" in func.__name__ else x0 < y0
        chosen = torch.where(ahead | x0.isnan(), x, y)
        return torch.where(x0 == y0, (x + y) / 2, chosen)
    if args or kwargs:
        raise CannotExpandError(f"{func.__name__} along a dimension")
    c0 = x.coefs[0]
    value = func(c0)
    chosen = c0 == value
    count = chosen.sum()
    return Polynomial([value, *[None if c is None else torch.where(chosen, c, 0).sum() / count for c in x.coefs[1:]]])


@rule_for("relu", "abs", "absolute", "__abs__", "leaky_relu", "relu6", "clamp", "clip", "clamp_min", "clamp_max")
def piecewise_linear(func: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """f(c₀) + f′(c₀) (x − c₀), with the slope of autograd.

    Raises:
        CannotExpandError: if the bounds of a function other than `clamp` are tensors.
    """
    kwargs.pop("inplace", None)
    if any(isinstance(arg, Tensor) for arg in (*args, *kwargs.values())):
        if func.__name__ not in ("clamp", "clip"):
            raise CannotExpandError(func.__name__)
        return _clamped(x, *args, **kwargs)
    c0 = x.coefs[0]
    slope = torch.func.vjp(lambda v: func(v, *args, **kwargs), c0.detach())[1](torch.ones_like(c0))[0]
    return Polynomial([func(c0, *args, **kwargs), *[None if c is None else c * slope for c in x.coefs[1:]]])


def _clamped(x: Any, min: Any = None, max: Any = None) -> Any:
    """x between two bounds that may be tensors or polynomials."""
    if min is not None:
        x = torch.where(_value(x) < _value(min), min, x)
    return x if max is None else torch.where(_value(x) > _value(max), max, x)


def _value(x: Any) -> Any:
    return x.coefs[0] if isinstance(x, Polynomial) else x
