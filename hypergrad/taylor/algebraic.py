"""Taylor rules of sums, products, quotients and powers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.analytic import solve
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of, rule_for
from hypergrad.taylor.series import convolve, integer_power, power, power_at_zero_too, quotient, squared, times


@rule_for("add", "sub", "subtract", "__add__", "__radd__", "__sub__")
def add(func: Callable, x: Any, y: Any, *, alpha: float = 1) -> Polynomial:
    """x ± α y."""
    degree = degree_of(x, y)
    scale = -alpha if func.__name__ in ("sub", "subtract", "__sub__") else alpha
    sums: list[Any] = []
    for a, b in zip(coefs_of(x, degree), coefs_of(y, degree), strict=True):
        scaled = b if b is None or scale == 1 else -b if scale == -1 else scale * b
        sums.append(scaled if a is None else a if scaled is None else a + scaled)
    return Polynomial(sums)


@rule_for("rsub", "__rsub__")
def rsub(func: Callable, x: Any, y: Any, *, alpha: float = 1) -> Polynomial:
    """y − α x."""
    return add(torch.sub, y, x, alpha=alpha)


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
    """xᵖ."""
    exponent = {"sqrt": 0.5, "rsqrt": -0.5, "square": 2}.get(func.__name__, exponent)
    if func.__name__ == "float_power":
        x, exponent = (value.double() if isinstance(value, Tensor) else value for value in (x, exponent))
    if isinstance(exponent, Polynomial):
        return _exponential(x, exponent)
    if isinstance(exponent, Tensor):
        return Polynomial(power_at_zero_too(x.coefs, exponent))
    if exponent == 0:
        return torch.ones_like(x.coefs[0])
    if exponent > 1:
        is_integer = float(exponent).is_integer()
        return Polynomial(integer_power(x.coefs, int(exponent)) if is_integer else power_at_zero_too(x.coefs, exponent))
    return x if exponent == 1 else Polynomial(power(x.coefs, exponent))


@rule_for("__rpow__")
def rpow(func: Callable, x: Polynomial, base: Any) -> Any:
    """baseˣ."""
    return _exponential(base, x)


def _exponential(base: Any, x: Polynomial) -> Polynomial:
    """y = baseˣ, from y′ = y (x log base)′; 0ˣ is constant, as PyTorch has it."""
    if not isinstance(base, Tensor):
        base = torch.as_tensor(base, dtype=x.dtype, device=x.device)
    b0, x0 = base.coefs[0] if isinstance(base, Polynomial) else base, x.coefs[0]
    if base is b0:
        base = torch.where(base == 0, 1, base)
    logarithm: Any = x * torch.log(base)
    return Polynomial(solve(logarithm.coefs, torch.pow(b0, x0), lambda y, k: y[k]))
