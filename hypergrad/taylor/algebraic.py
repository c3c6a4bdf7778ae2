"""Taylor rules of sums, products, quotients and powers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of, rule_for
from hypergrad.taylor.series import Coefficients, convolve, integer_power, power, quotient, squared, times

_LARGEST_POWER = 16


def _shaped(coefs: Coefficients) -> Polynomial:
    """All coefficients in the shape of c₀, which a sum with a larger constant has and they have not."""
    shape = coefs[0].shape
    return Polynomial([c if c is None or c.shape == shape else c.expand(shape) for c in coefs])


@rule_for("add", "sub", "subtract", "__add__", "__radd__", "__sub__")
def add(func: Callable, x: Any, y: Any, *, alpha: float = 1) -> Polynomial:
    """x ± α y."""
    degree = degree_of(x, y)
    scale = -alpha if func.__name__ in ("sub", "subtract", "__sub__") else alpha
    sums: list[Any] = []
    for a, b in zip(coefs_of(x, degree), coefs_of(y, degree), strict=True):
        scaled = b if b is None or scale == 1 else -b if scale == -1 else scale * b
        sums.append(scaled if a is None else a if scaled is None else a + scaled)
    return _shaped(sums)


@rule_for("rsub", "__rsub__")
def rsub(func: Callable, x: Any, y: Any) -> Polynomial:
    """y − x."""
    return add(torch.sub, y, x)


@rule_for("mul", "multiply", "__mul__", "__rmul__")
def mul(func: Callable, x: Any, y: Any) -> Polynomial:
    """x y."""
    if x is y:
        return Polynomial([squared(x.coefs, k) for k in range(len(x.coefs))])
    if not isinstance(y, Polynomial):
        x, y = y, x
    if not isinstance(x, Polynomial):
        return Polynomial([None if c is None else x * c for c in y.coefs])
    return Polynomial(convolve(times, x.coefs, y.coefs))


@rule_for("div", "divide", "true_divide", "__truediv__", "__div__")
def div(func: Callable, x: Any, y: Any, *, rounding_mode: str | None = None) -> Polynomial:
    """x / y.

    Raises:
        CannotExpandError: if it rounds.
    """
    if rounding_mode is not None:
        raise CannotExpandError(f"div with rounding_mode={rounding_mode!r}")
    if not isinstance(y, Polynomial):
        return Polynomial([None if c is None else c / y for c in x.coefs])
    return Polynomial(quotient(coefs_of(x, degree_of(y)), y.coefs))


@rule_for("__rtruediv__", "__rdiv__", "reciprocal")
def rdiv(func: Callable, x: Polynomial, y: Any = 1) -> Polynomial:
    """y / x."""
    return div(torch.div, y, x)


@rule_for("pow", "__pow__", "float_power", "sqrt", "rsqrt", "square")
def pow_(func: Callable, x: Any, exponent: Any = None) -> Any:
    """xᵖ for a constant exponent, or exp(p log x) for one that moves."""
    exponent = {"sqrt": 0.5, "rsqrt": -0.5, "square": 2}.get(func.__name__, exponent)
    if not isinstance(x, Polynomial) or isinstance(exponent, Tensor):
        return torch.exp(exponent * torch.log(x))
    if exponent == 0:
        return torch.ones_like(x.coefs[0])
    if float(exponent).is_integer() and 0 < exponent <= _LARGEST_POWER:
        return Polynomial(integer_power(x.coefs, int(exponent)))
    return Polynomial(power(x.coefs, exponent))


@rule_for("__rpow__")
def rpow(func: Callable, x: Polynomial, base: Any) -> Any:
    """Base to the power x."""
    return torch.exp(x * torch.log(torch.as_tensor(base, dtype=x.dtype)))
