"""Taylor rules of sums, products, quotients and powers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.polynomial import (
    CannotExpandError,
    Coefficients,
    Polynomial,
    coefs_of,
    degree_of,
    rule_for,
)

_LARGEST_POWER = 16


def convolve(product: Callable[[Any, Any], Tensor], a: Coefficients, b: Coefficients) -> list[Any]:
    """c_k = Σᵢ product(aᵢ, b_{k−i}) for all k."""
    return [convolved(product, a, b, k) for k in range(len(a))]


def convolved(product: Callable[[Any, Any], Tensor], a: Coefficients, b: Coefficients, k: int) -> Tensor | None:
    """Coefficient k of a product, None where it is zero; coefficients that are not there yet count as zero."""
    total: Tensor | None = None
    for i in range(max(0, k - len(b) + 1), min(k + 1, len(a))):
        x, y = a[i], b[k - i]
        if x is not None and y is not None:
            total = product(x, y) if total is None else total + product(x, y)
    return total


def times(a: Any, b: Any) -> Any:
    """The product of two numbers or tensors, entry by entry."""
    return a * b


def squared(a: Coefficients, k: int) -> Any:
    """Coefficient k of a², each pair of different factors multiplied once."""
    crossed = convolved(times, a[: (k + 1) // 2], (None,) * (k // 2 + 1) + tuple(a[k // 2 + 1 : k + 1]), k)
    middle = a[k // 2] if k % 2 == 0 else None
    if middle is None:
        return None if crossed is None else 2 * crossed
    return middle * middle if crossed is None else torch.addcmul(2 * crossed, middle, middle)


def quotient(a: Coefficients, b: Coefficients) -> list[Any]:
    """C = a / b from b c = a: c_k = (a_k − Σ_{i<k} cᵢ b_{k−i}) / b₀."""
    c: list[Any] = []
    for k in range(len(a)):
        known, top = convolved(times, c, b, k), a[k]
        rest = top if known is None else -known if top is None else top - known
        c.append(None if rest is None else rest / b[0])
    return c


def power(a: Coefficients, exponent: float) -> list[Any]:
    """C = aᵖ from a c′ = p a′ c: c_k = Σ_{i≥1} (p i − (k − i)) aᵢ c_{k−i} / (k a₀)."""
    c: list[Any] = [a[0] ** exponent]
    for k in range(1, len(a)):
        total: Tensor | None = None
        for i in range(1, k + 1):
            x, y = a[i], c[k - i]
            if x is not None and y is not None:
                term = x * y * (exponent * i - (k - i))
                total = term if total is None else total + term
        c.append(None if total is None else total / (k * a[0]))
    return c


def integer_power(a: Coefficients, exponent: int) -> Coefficients:
    """Aᵖ by repeated squaring, which a₀ = 0 does not trouble; p ≥ 1."""
    if exponent == 1:
        return a
    half = integer_power(a, exponent // 2)
    even = [squared(half, k) for k in range(len(a))]
    return even if exponent % 2 == 0 else convolve(times, even, a)


def _shaped(coefs: Coefficients) -> Polynomial:
    """All coefficients in the shape of c₀, which a sum with a larger constant has and they have not."""
    shape = coefs[0].shape
    return Polynomial([c if c is None or c.shape == shape else c.expand(shape) for c in coefs])


@rule_for("add", "sub", "subtract", "__add__", "__radd__", "__sub__")
def add(func: Callable, x: Any, y: Any, *, alpha: float = 1) -> Polynomial:
    """X ± α y."""
    degree = degree_of(x, y)
    scale = -alpha if func.__name__ in ("sub", "subtract", "__sub__") else alpha
    sums: list[Any] = []
    for a, b in zip(coefs_of(x, degree), coefs_of(y, degree), strict=True):
        scaled = b if b is None or scale == 1 else -b if scale == -1 else scale * b
        sums.append(scaled if a is None else a if scaled is None else a + scaled)
    return _shaped(sums)


@rule_for("rsub", "__rsub__")
def rsub(func: Callable, x: Any, y: Any) -> Polynomial:
    """Y − x."""
    return add(torch.sub, y, x)


@rule_for("mul", "multiply", "__mul__", "__rmul__")
def mul(func: Callable, x: Any, y: Any) -> Polynomial:
    """X y."""
    if x is y:
        return Polynomial([squared(x.coefs, k) for k in range(len(x.coefs))])
    if not isinstance(y, Polynomial):
        x, y = y, x
    if not isinstance(x, Polynomial):
        return Polynomial([None if c is None else x * c for c in y.coefs])
    return Polynomial(convolve(times, x.coefs, y.coefs))


@rule_for("div", "divide", "true_divide", "__truediv__", "__div__")
def div(func: Callable, x: Any, y: Any, *, rounding_mode: str | None = None) -> Polynomial:
    """X / y.

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
    """Y / x."""
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


@rule_for("matmul", "__matmul__", "mm", "mv", "bmm", "dot", "inner", "outer", "vdot", "ger", "kron", "tensordot")
def bilinear(func: Callable, x: Any, y: Any, *args: Any, **kwargs: Any) -> Polynomial:
    """A function that is linear in each of its first two arguments."""
    degree = degree_of(x, y)
    product = partial(_apply, func, args, kwargs)
    return Polynomial(convolve(product, coefs_of(x, degree), coefs_of(y, degree)))


def _apply(func: Callable, args: tuple, kwargs: dict, a: Tensor, b: Tensor) -> Tensor:
    return func(a, b, *args, **kwargs)


@rule_for("__rmatmul__")
def rmatmul(func: Callable, y: Any, x: Any) -> Polynomial:
    """X y."""
    return bilinear(torch.matmul, x, y)


@rule_for("einsum")
def einsum(func: Callable, equation: str, *given: Any) -> Polynomial:
    """The sum of products of an equation in one or two operands.

    Raises:
        CannotExpandError: if there are more.
    """
    operands = given[0] if isinstance(given[0], list | tuple) else given
    if len(operands) > 2:
        raise CannotExpandError(f"einsum of {len(operands)} operands")
    if len(operands) == 1:
        return Polynomial([None if c is None else torch.einsum(equation, c) for c in operands[0].coefs])
    degree = degree_of(*operands)
    first, second = (coefs_of(operand, degree) for operand in operands)
    return Polynomial(convolve(lambda a, b: torch.einsum(equation, a, b), first, second))


@rule_for("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d")
def affine(func: Callable, x: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Polynomial:
    """A layer: bilinear in its input and weight, and linear in its bias."""
    degree = degree_of(x, weight, bias)
    product = partial(_affine_without_bias, func, args, kwargs)
    if isinstance(x, Polynomial) or isinstance(weight, Polynomial):
        coefs: Coefficients = convolve(product, coefs_of(x, degree), coefs_of(weight, degree))
    else:
        coefs = coefs_of(product(x, weight), degree)
    if bias is None:
        return Polynomial(coefs)
    if func is not torch.nn.functional.linear:  # channels come before the positions
        bias = bias.reshape(-1, *[1] * (coefs[0].ndim - (2 if x.ndim == coefs[0].ndim else 1)))
    return add(torch.add, Polynomial(coefs), bias)


def _affine_without_bias(func: Callable, args: tuple, kwargs: dict, x: Tensor, weight: Tensor) -> Tensor:
    return func(x, weight, None, *args, **kwargs)
