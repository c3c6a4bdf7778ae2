"""Taylor rules of functions whose higher derivatives PyTorch lacks, or has wrong at zero."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.elementary import composed_of_elementary
from hypergrad.taylor.moment import norm
from hypergrad.taylor.names import CannotExpandError, name_of
from hypergrad.taylor.polynomial import rule_for

_TERMS = 5
"""Of a series in x² at x = 0: right to the order 2 × 5 − 1 in x."""


@rule_for("sinc")
@composed_of_elementary("sinc")
def sinc(func: Callable, x: Any) -> Any:
    """sin(π x) / (π x), and its series at 0, where PyTorch's derivatives are NaN from the second order on."""
    is_zero = x == 0
    z = math.pi * torch.where(is_zero, 1.0, x)
    squared = -((math.pi * x) ** 2)
    return torch.where(is_zero, _series(squared, lambda n: math.factorial(2 * n + 1)), torch.sin(z) / z)


@composed_of_elementary("pow", "__pow__")
def power(func: Callable, x: Any, exponent: Any) -> Tensor:
    """xᵖ for tensors; at p = 0 exp(p log x), as PyTorch has a derivative by x and p of 0 there.

    Raises:
        CannotExpandError: if one is a number, or of integers.
    """
    if not all(isinstance(value, Tensor) and value.is_floating_point() for value in (x, exponent)):
        raise CannotExpandError(f"{func.__name__} of numbers or integers")
    by_logarithm = (x > 0) & (exponent == 0)
    near = torch.exp(torch.where(by_logarithm, exponent, 0) * torch.log(torch.where(by_logarithm, x, 1)))
    return torch.where(by_logarithm, near, func(torch.where(by_logarithm, 1, x), exponent))


@composed_of_elementary("i0", "i1")
def bessel(func: Callable, x: Tensor) -> Tensor:
    """The Bessel function I₀ or I₁, and its series at 0, where PyTorch has derivatives of 0 from order 4 or 3 on."""
    is_zero, z = x == 0, x * x / 4
    away = func(torch.where(is_zero, 1.0, x))
    if name_of(func) == "i0":
        return torch.where(is_zero, _series(z, lambda n: math.factorial(n) ** 2), away)
    return torch.where(is_zero, x / 2 * _series(z, lambda n: math.factorial(n) * math.factorial(n + 1)), away)


def _series(z: Any, divisor: Callable[[int], int]) -> Any:
    """Σ_n zⁿ / divisor(n), by Horner's scheme."""
    total: Any = 1 / divisor(_TERMS - 1)
    for n in reversed(range(_TERMS - 1)):
        total = total * z + 1 / divisor(n)
    return total


@rule_for("cdist")
@composed_of_elementary("cdist")
def cdist(func: Callable, x: Any, y: Any, p: float = 2.0, *ignored: Any, **other: Any) -> Any:
    """The distances of all rows of x from all rows of y, of which PyTorch has no second derivative.

    Raises:
        CannotExpandError: for other norms than the Euclidean one.
    """
    if p != 2:
        raise CannotExpandError(f"cdist with p={p}")
    return norm(torch.linalg.vector_norm, x.unsqueeze(-2) - y.unsqueeze(-3), dim=-1)


@composed_of_elementary("pairwise_distance")
def pairwise_distance(func: Callable, x: Any, y: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """‖x − y + ε‖ of each pair of rows.

    Raises:
        CannotExpandError: for other norms than the Euclidean one.
    """
    if p != 2:
        raise CannotExpandError(f"pairwise_distance with p={p}")
    return norm(torch.linalg.vector_norm, x - y + eps, dim=-1, keepdim=keepdim)
