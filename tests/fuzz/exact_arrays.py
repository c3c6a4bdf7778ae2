"""Arrays of numbers with 70 digits, and the functions of PyTorch on them that numpy lacks."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from mpmath import mp

mp.dps = max(mp.dps, 70)
Array = Any
"""A numpy array of mpmath's numbers."""


def exact(x: Any) -> Array:
    """The same values with 70 digits."""
    array = np.asarray(x.detach().numpy() if isinstance(x, torch.Tensor) else x)
    return np.array([mpmath.mpf(float(v)) for v in array.ravel()] + [None], dtype=object)[:-1].reshape(array.shape)


def each(function: Callable) -> Callable[[Array], Array]:
    """A function of one number on all entries."""
    return lambda x: np.frompyfunc(function, 1, 1)(np.asarray(x, dtype=object))


def real(function: Callable) -> Callable:
    """A function of one number that is refused where it is complex."""

    def found(v: Any) -> Any:
        if v < 0:
            raise ValueError(f"{v} is negative")
        return function(v)

    return found


exp, log, tanh, sin, cos, sqrt = (each(f) for f in (mp.exp, real(mp.log), mp.tanh, mp.sin, mp.cos, real(mp.sqrt)))
erf, atan, i0 = (each(f) for f in (mp.erf, mp.atan, lambda v: mp.besseli(0, v)))


def polygamma(n: int) -> Callable[[Array], Array]:
    """Derivative n of the digamma function."""
    return each(lambda v: mp.psi(n, v))


def softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    """log(1 + exp(β x)) / β, or x where β x exceeds the threshold."""
    return each(lambda v: v if beta * v > threshold else mp.log1p(mp.exp(beta * v)) / beta)(x)


def choose(condition: Any, x: Any, y: Any) -> Array:
    """x or y, entry by entry."""
    return np.where(np.asarray(condition, dtype=bool), x, y)


def clamp(x: Array, low: Any, high: Any) -> Array:
    """x between two bounds."""
    x = choose(x < low, low, x)
    return choose(x > high, high, x)


def along(x: Array, function: Callable[[list], Any]) -> Array:
    """A function of each row."""
    return np.array([function(list(row)) for row in x], dtype=object)


def softmax(x: Array) -> Array:
    """Of each row."""
    e = exp(x)
    return e / e.sum(-1, keepdims=True)


def standardised(x: Array, eps: float = 1e-5) -> Array:
    """Each row without its mean, with unit variance."""
    gap = x - x.mean(-1, keepdims=True)
    return gap / sqrt((gap * gap).mean(-1, keepdims=True) + mpmath.mpf(eps))


def solve(A: Array, b: Array) -> Array:
    """A⁻¹ b by elimination with pivots."""
    n = len(A)
    rows = np.concatenate([A, b.reshape(n, -1)], 1)
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(rows[r, i]))
        rows[[i, pivot]] = rows[[pivot, i]]
        rows[i] = rows[i] / rows[i, i]
        for r in range(n):
            if r != i:
                rows[r] = rows[r] - rows[i] * rows[r, i]
    return rows[:, n:].reshape(b.shape)


def det(A: Array) -> Any:
    """The determinant, by its first row."""
    if len(A) == 1:
        return A[0, 0]
    minors = (np.delete(A[1:], j, axis=1) for j in range(len(A)))
    return sum((-1) ** j * A[0, j] * det(minor) for j, minor in enumerate(minors))


def cholesky(A: Array) -> Array:
    """L with L Lᵀ = A."""
    n = len(A)
    L = exact(np.zeros((n, n)))
    for i in range(n):
        for j in range(i + 1):
            rest = A[i, j] - (L[i, :j] * L[j, :j]).sum()
            L[i, j] = mp.sqrt(rest) if i == j else rest / L[j, j]
    return L


def eye(n: int) -> Array:
    """The unit matrix."""
    return exact(np.eye(n))


def image(function: Callable[[torch.Tensor], torch.Tensor], x: Array) -> Array:
    """An affine function of PyTorch, from its values at zero and at the unit vectors."""
    units = torch.eye(x.size, dtype=torch.float64).reshape(x.size, *x.shape)
    constant = function(torch.zeros(x.shape, dtype=torch.float64))
    columns = [exact(function(unit) - constant) for unit in units]
    return exact(constant) + sum(v * column for v, column in zip(x.ravel(), columns, strict=True))


def gradient(function: Callable[[Array], Any], x: Array, step: Any) -> Array:
    """Of a scalar function, by central differences."""
    units = [eye(x.size)[i].reshape(x.shape) * step for i in range(x.size)]
    return np.array([(function(x + u) - function(x - u)) / (2 * step) for u in units], dtype=object).reshape(x.shape)


def jacobian(function: Callable[[Array], Array], x: Array, step: Any) -> Array:
    """Of a vector, by central differences; a column for each entry of x."""
    units = [eye(x.size)[i].reshape(x.shape) * step for i in range(x.size)]
    return np.stack([(function(x + u) - function(x - u)) / (2 * step) for u in units], axis=1)
