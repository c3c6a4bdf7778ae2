"""Coefficients of products, quotients and powers of series."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Coefficients = Sequence[Any]
"""The coefficients c₀, c₁, …, c_K of tⁱ: tensors of one shape, or None for zero; c₀ is never None."""


def convolve(product: Callable[[Any, Any], Tensor], a: Coefficients, b: Coefficients) -> list[Any]:
    """c_k = Σᵢ product(aᵢ, b_{k−i}) for all k."""
    return [convolved(product, a, b, k) for k in range(len(a))]


def convolved(product: Callable[[Any, Any], Tensor], a: Coefficients, b: Coefficients, k: int) -> Tensor | None:
    """Coefficient k of a product, or None if it is zero; coefficients that are not known yet count as zero."""
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
    """Coefficient k of a²; each pair of different factors is multiplied once."""
    crossed = convolved(times, a[: (k + 1) // 2], (None,) * (k // 2 + 1) + tuple(a[k // 2 + 1 : k + 1]), k)
    middle = a[k // 2] if k % 2 == 0 else None
    if middle is None:
        return None if crossed is None else 2 * crossed
    return middle * middle if crossed is None else torch.addcmul(2 * crossed, middle, middle)


def quotient(a: Coefficients, b: Coefficients) -> list[Any]:
    """c = a / b from b c = a: c_k = (a_k − Σ_{i<k} cᵢ b_{k−i}) / b₀."""
    c: list[Any] = []
    for k in range(len(a)):
        known, top = convolved(times, c, b, k), a[k]
        rest = top if known is None else -known if top is None else top - known
        c.append(None if rest is None else rest / b[0])
    return c


def power(a: Coefficients, exponent: float) -> list[Any]:
    """c = aᵖ from a c′ = p a′ c: c_k = Σ_{i≥1} (p i − (k − i)) aᵢ c_{k−i} / (k a₀)."""
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


def power_at_zero_too(a: Coefficients, exponent: Any) -> list[Any]:
    """c = aᵖ = Σ_j (p over j) a₀^{p−j} (a − a₀)ʲ, as far as it is finite at a₀ = 0; p may be a tensor of exponents."""
    step: list[Any] = [None, *a[1:]]
    c: list[Any] = [a[0] ** exponent, *[None] * (len(a) - 1)]
    binomial: Any = torch.as_tensor(exponent, dtype=a[0].dtype, device=a[0].device)
    p, powers = binomial, step
    for j in range(1, len(a)):
        # Where the factor is 0, a₀^{p−j} is infinite at 0, and so is its derivative.
        factor = binomial * a[0] ** torch.where(binomial == 0, 0, p - j)
        for k in range(j, len(a)):
            term = None if powers[k] is None else factor * powers[k]
            c[k] = term if c[k] is None else c[k] if term is None else c[k] + term
        binomial = binomial * (p - j) / (j + 1)
        powers = convolve(times, powers, step)
    return c


def integer_power(a: Coefficients, exponent: int) -> Coefficients:
    """aᵖ by repeated squaring, which is right at a₀ = 0 too; p ≥ 1."""
    if exponent == 1:
        return a
    half = integer_power(a, exponent // 2)
    even = [squared(half, k) for k in range(len(a))]
    return even if exponent % 2 == 0 else convolve(times, even, a)
