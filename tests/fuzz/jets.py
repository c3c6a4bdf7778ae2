"""Values with first and second derivatives in extended precision, away from torch: what the fuzz tests call the truth.

A jet holds a value a of shape s, its derivatives by all m variables, shape s + (m,), and those of the first n of these
by all, shape s + (n, m): the rows w of the Hessian in (w, λ), which the implicit function theorem uses. A loss that is
written with operators and the methods here reads the same for torch tensors.
"""

from typing import Any

import numpy as np

Array = Any
"""An array of numpy.longdouble."""


def _outer(a: Array | None, b: Array | None, n: int) -> Array | None:
    """a_w bᵀ, for derivatives a and b; None is zero."""
    return None if a is None or b is None else a[..., :n, None] * b[..., None, :]


def _plus(*terms: Array | None) -> Array | None:
    known = [x for x in terms if x is not None]
    return sum(known[1:], known[0]) if known else None


def _times(scale: Array, x: Array | None, extra: int) -> Array | None:
    """A factor for each entry of the value, times its derivatives."""
    return None if x is None else np.asarray(scale)[(...,) + (None,) * extra] * x


class Jet:
    """A value with its derivatives; `rows` = n is 0 if only first derivatives are wanted."""

    __array_ufunc__ = None  # numpy leaves its operators to the methods below

    def __init__(self, value: Array, slope: Array | None, bend: Array | None, rows: int):
        self.value, self.slope, self.bend, self.rows = value, slope, bend, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def _of(self, x: Any) -> "Jet":
        return x if isinstance(x, Jet) else Jet(np.asarray(x, dtype=self.value.dtype), None, None, self.rows)

    def _wide(self, shape: tuple[int, ...]) -> "Jet":
        """Broadcast, also the derivatives."""
        if self.shape == shape:
            return self
        lead = (None,) * (len(shape) - len(self.shape))

        def wide(x: Array | None, extra: int) -> Array | None:
            return None if x is None else np.broadcast_to(x[lead], shape + x.shape[x.ndim - extra :])

        return Jet(np.broadcast_to(self.value, shape), wide(self.slope, 1), wide(self.bend, 2), self.rows)

    def _pair(self, other: Any) -> "tuple[Jet, Jet]":
        other = self._of(other)
        shape = np.broadcast_shapes(self.shape, other.shape)
        return self._wide(shape), other._wide(shape)

    def __add__(self, other: Any) -> "Jet":
        a, b = self._pair(other)
        return Jet(a.value + b.value, _plus(a.slope, b.slope), _plus(a.bend, b.bend), self.rows)

    def __mul__(self, other: Any) -> "Jet":
        a, b = self._pair(other)
        slope = _plus(_times(b.value, a.slope, 1), _times(a.value, b.slope, 1))
        cross = [_outer(a.slope, b.slope, self.rows), _outer(b.slope, a.slope, self.rows)] if self.rows else []
        bend = _plus(_times(b.value, a.bend, 2), _times(a.value, b.bend, 2), *cross)
        return Jet(a.value * b.value, slope, bend, self.rows)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Jet":
        return self * -1

    def __sub__(self, other: Any) -> "Jet":
        return self + -1 * other

    def __rsub__(self, other: Any) -> "Jet":
        return -self + other

    def __truediv__(self, number: float) -> "Jet":
        return self * (1 / self.value.dtype.type(number))

    def __rmatmul__(self, X: Array) -> "Jet":
        """X @ self for a constant matrix and a vector or matrix."""

        def each(x: Array | None) -> Array | None:
            return None if x is None else np.tensordot(X, x, 1)

        return Jet(X @ self.value, each(self.slope), each(self.bend), self.rows)

    def __getitem__(self, index: Any) -> "Jet":
        index = index if isinstance(index, tuple) else (index,)
        return self._each(lambda x: x[index])

    def reshape(self, *shape: int) -> "Jet":
        return self._each(lambda x: x.reshape(*shape, *x.shape[len(self.shape) :]))

    def sum(self, axis: int | None = None) -> "Jet":
        axes = tuple(range(len(self.shape))) if axis is None else (axis % len(self.shape),)
        return self._each(lambda x: x.sum(axes))

    def mean(self) -> "Jet":
        return self.sum() / self.value.size

    def _each(self, f: Any) -> "Jet":
        one, two = (None if x is None else f(x) for x in (self.slope, self.bend))
        return Jet(f(self.value), one, two, self.rows)

    def mapped(self, f: Array, first: Array, second: Array) -> "Jet":
        """An elementwise function with given values and derivatives."""
        cross = _outer(self.slope, self.slope, self.rows) if self.rows else None
        bend = _plus(_times(first, self.bend, 2), _times(second, cross, 2))
        return Jet(f, _times(first, self.slope, 1), bend, self.rows)

    def exp(self) -> "Jet":
        e = np.exp(self.value)
        return self.mapped(e, e, e)

    def log(self) -> "Jet":
        x = self.value
        return self.mapped(np.log(x), 1 / x, -1 / x**2)

    def sqrt(self) -> "Jet":
        r = np.sqrt(self.value)
        return self.mapped(r, 1 / (2 * r), -1 / (4 * r**3))

    def log1p(self) -> "Jet":
        x = 1 + self.value
        return self.mapped(np.log1p(self.value), 1 / x, -1 / x**2)

    def tanh(self) -> "Jet":
        t = np.tanh(self.value)
        return self.mapped(t, 1 - t**2, -2 * t * (1 - t**2))

    def square(self) -> "Jet":
        return self * self

    def softplus(self) -> "Jet":
        """log(1 + eᶻ)."""
        z = self.value
        s = (1 + np.tanh(z / 2)) / 2
        return self.mapped(np.maximum(z, 0) + np.log1p(np.exp(-abs(z))), s, s * (1 + np.tanh(-z / 2)) / 2)

    def logsumexp(self) -> "Jet":
        """Over the last axis."""
        most = self.value.max(-1)
        return (self - most[..., None]).exp().sum(-1).log() + most


def variables(arrays: dict[str, Array], *, others: int = 0, first: int = 0, rows: int = 0) -> dict[str, Jet]:
    """The entries of named arrays as variables number `first`, first + 1, … of first + size + others."""
    size = sum(x.size for x in arrays.values())
    units, found = np.eye(first + size + others, dtype=next(iter(arrays.values())).dtype), {}
    for name, x in arrays.items():
        found[name] = Jet(x, units[first : first + x.size].reshape(*x.shape, -1), None, rows)
        first += x.size
    return found
