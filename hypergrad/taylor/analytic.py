"""Taylor rules of analytic functions: y = f(x) from a differential equation that it satisfies.

With y′ = u x′ along the path, k y_k = Σ_{j=1..k} j x_j u_{k−j}. If u is a polynomial in y, its coefficient k − 1 is
known before y_k is needed.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.names import name_of
from hypergrad.taylor.polynomial import Polynomial, rule_for
from hypergrad.taylor.series import Coefficients, convolve, convolved, quotient, squared, times

_SATURATED = 20
"""Where the sigmoid is 1 to 2e-9; the threshold of `softplus` by default."""
Next = Callable[[list[Any], int], Tensor | None]
"""(y₀ … y_k, k) ↦ u_k."""


def derivative(x: Coefficients) -> list[Any]:
    """The coefficients of x′: x₁, 2 x₂, 3 x₃ and so on."""
    return [None if c is None else c if j == 0 else c * (j + 1) for j, c in enumerate(x[1:])]


def integral(dx: Coefficients, u: Coefficients, k: int) -> Tensor | None:
    """Coefficient k ≥ 1 of y, where y′ = u x′ and dx is x′."""
    total = convolved(times, dx, u, k - 1)
    return total if total is None or k == 1 else total / k


def solve(x: Coefficients, y0: Tensor, next_u: Next) -> list[Any]:
    """The coefficients of y with y(0) = y₀, y′ = u x′ and u a function of y."""
    y: list[Any] = [y0]
    u: list[Any] = []
    dx = derivative(x)
    for k in range(1, len(x)):
        u.append(next_u(y, k - 1))
        y.append(integral(dx, u, k))
    return y


def integrate(x: Coefficients, y0: Tensor, u: Coefficients) -> Polynomial:
    """y with y(0) = y₀ and y′ = u x′, for known u."""
    dx = derivative(x)
    return Polynomial([y0, *[integral(dx, u, k) for k in range(1, len(x))]])


def _minus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else -b if a is None else a - b


def _exp(x: Coefficients) -> list[Any]:
    return solve(x, torch.exp(x[0]), lambda y, k: y[k])


def _sigmoid(x: Coefficients) -> list[Any]:
    return solve(x, torch.sigmoid(x[0]), lambda y, k: _minus(y[k], squared(y, k)))


def _one(x: Coefficients) -> list[Any]:
    return [torch.ones_like(x[0]), *[None] * (len(x) - 1)]


@rule_for("exp", "expm1", "exp2")
def exp(func: Callable, x: Polynomial) -> Any:
    """y′ = y x′."""
    if name_of(func) == "exp2":
        return torch.exp(x * math.log(2))
    y = _exp(x.coefs)
    return Polynomial([func(x.coefs[0]), *y[1:]])


@rule_for("log", "log1p", "log2", "log10")
def log(func: Callable, x: Polynomial) -> Polynomial:
    """y′ = x′ / x, with 1 + x for `log1p`."""
    c0, name = x.coefs[0], name_of(func)
    base = {"log2": math.log(2), "log10": math.log(10)}.get(name, 1.0)
    shift = c0 + 1 if name == "log1p" else c0 * base
    scaled = [shift, *[None if c is None else c * base for c in x.coefs[1:]]]
    return integrate(x.coefs, func(c0), quotient(_one(x.coefs), scaled))


@rule_for("sigmoid", "expit")
def sigmoid(func: Callable, x: Polynomial) -> Polynomial:
    """y′ = y (1 − y) x′."""
    return Polynomial(_sigmoid(x.coefs))


@rule_for("tanh")
def tanh(func: Callable, x: Polynomial) -> Polynomial:
    """y′ = (1 − y²) x′."""

    def next_u(y: list[Any], k: int) -> Tensor | None:
        square = squared(y, k)
        return 1 - square if k == 0 else _minus(None, square)

    return Polynomial(solve(x.coefs, torch.tanh(x.coefs[0]), next_u))


@rule_for("softplus")
def softplus(func: Callable, x: Polynomial, beta: float = 1, threshold: float = 20) -> Polynomial:
    """y′ = σ(β x) x′, or y = x where β x is above the threshold."""
    scaled = x.coefs if beta == 1 else [None if c is None else beta * c for c in x.coefs]
    smooth = integrate(x.coefs, func(x.coefs[0], beta, threshold), _sigmoid(scaled))
    # Above the default threshold σ is 1 to 2e-9, and where it is not needed there is no selection.
    return smooth if threshold >= _SATURATED else torch.where(scaled[0] > threshold, x, smooth)  # type: ignore[return-value]


@rule_for("logsigmoid", "log_sigmoid")
def logsigmoid(func: Callable, x: Any) -> Any:
    """y′ = σ(−x) x′."""
    return -softplus(torch.nn.functional.softplus, -x)


@rule_for("sin", "cos")
def sin_cos(func: Callable, x: Polynomial) -> Polynomial:
    """s′ = c x′ and c′ = −s x′."""
    c0 = x.coefs[0]
    s: list[Any] = [torch.sin(c0)]
    c: list[Any] = [torch.cos(c0)]
    dx = derivative(x.coefs)
    for k in range(1, len(x.coefs)):
        following = integral(dx, c, k), _minus(None, integral(dx, s, k))
        s.append(following[0])
        c.append(following[1])
    return Polynomial(s if func.__name__ == "sin" else c)


@rule_for("atan", "arctan")
def atan(func: Callable, x: Polynomial) -> Polynomial:
    """y′ = x′ / (1 + x²)."""
    u: Any = 1 / (1 + x * x)
    return integrate(x.coefs, func(x.coefs[0]), u.coefs)


@rule_for("erf")
def erf(func: Callable, x: Polynomial) -> Polynomial:
    """y′ = 2/√π exp(−x²) x′."""
    u: Any = torch.exp(-x * x) * (2 / math.sqrt(math.pi))
    return integrate(x.coefs, func(x.coefs[0]), u.coefs)


@rule_for("silu")
def silu(func: Callable, x: Polynomial, inplace: bool = False) -> Polynomial:
    """x σ(x)."""
    return Polynomial(convolve(times, x.coefs, _sigmoid(x.coefs)))


@rule_for("gelu")
def gelu(func: Callable, x: Any, approximate: str = "none") -> Any:
    """x Φ(x), or its approximation by tanh."""
    if approximate == "none":
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
