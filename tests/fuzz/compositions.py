"""Random compositions of PyTorch's functions along a random path, and their Taylor coefficients in 70 digits."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import exact_arrays as m
import mpmath
import numpy as np
import torch
from mpmath import mp
from torch import Tensor
from torch_operations import OPERATIONS

SIDE = 6
"""Points on each side of t = 0; the error of a derivative is some h^(7 − order)."""
H = mpmath.mpf(10) ** -9
LARGEST = 1e6
"""Values beyond it are not tried: float64 has few digits left for their derivatives."""
SPECIAL = (0.0, 0.0, 1.0, -1.0, 0.5, 2.0)


class OutsideError(Exception):
    """The composition has no value, or none of moderate size, at this point."""


@dataclass(frozen=True)
class Composition:
    """f: (2, 3) → (2, 3), a chain of operations, and paths x(t), y(t) of degree K.

    Attributes:
        names: of the operations, in order.
        x: coefficients of x(t), each (2, 3) or None.
        y: the same for y(t).
        c: the constant, (2, 3).
    """

    names: tuple[str, ...]
    x: list[Tensor | None]
    y: list[Tensor | None]
    c: Tensor

    @classmethod
    def draw(cls, seed: int, number: int, degree: int = 4) -> "Composition":
        """Case `number` of a seed."""
        rng = random.Random(f"{seed}/{number}")
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        names = tuple(rng.choice(list(OPERATIONS)) for _ in range(rng.choice((1, 1, 2, 2, 3, 4))))
        special = rng.random() < 0.35

        def path() -> list[Tensor | None]:
            coefs: list[Tensor | None] = [
                torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(degree + 1)
            ]
            if special:
                coefs[0] = torch.tensor(
                    [[rng.choice(SPECIAL) for _ in range(3)] for _ in range(2)], dtype=torch.float64
                )
            gaps = rng.choice(((), (), (2, 3, 4), (1, 3), (1, 2, 3, 4)))
            return [None if k in gaps and k <= degree else v for k, v in enumerate(coefs)]

        x, y = path(), path()
        if all(v is None for v in x[1:]):
            x[1] = torch.ones(2, 3, dtype=torch.float64)
        c = torch.randn(2, 3, generator=generator, dtype=torch.float64)
        return cls(names, x, y, c)

    def smooth(self) -> int:
        """The highest order to which each operation is smooth at its inputs, in a direction of its own.

        A path may cross a kink smoothly, as |t²| does; PyTorch takes its subgradient there all the same.
        """
        x, y = self.x[0], self.y[0]
        lowest, generator = self.degree, torch.Generator().manual_seed(7)
        for name in self.names:
            at_x, at_y = ([v, *torch.randn(self.degree, 2, 3, generator=generator).double()] for v in (x, y))
            alone = Composition((name,), at_x, at_y, self.c)
            lowest = min(lowest, alone.exact.smooth)
            x, y = alone.of_tensors(x, y), x
        return lowest

    def of_tensors(self, x: Any, y: Any, shapes: list | None = None) -> Any:
        """f of tensors or polynomials; the shapes of all results are appended to `shapes`."""
        for name in self.names:
            result = OPERATIONS[name][0](x, y, self.c)
            if shapes is not None:
                shapes.append((name, tuple(result.shape), result.dtype))
            flat = result.reshape(-1)
            x, y = flat[[i % len(flat) for i in range(6)]].reshape(2, 3), x
        return x

    def of_arrays(self, x: Any, y: Any) -> list[Any]:
        """The results of all operations, in 70 digits.

        Raises:
            OutsideError: if one is complex, infinite or too large.
        """
        c, found = m.exact(self.c), []
        for name in self.names:
            flat = np.asarray(OPERATIONS[name][1](x, y, c), dtype=object).ravel()
            x, y = flat[[i % len(flat) for i in range(6)]].reshape(2, 3), x
            if any(not mp.isfinite(v) or mp.im(v) != 0 or abs(v) > LARGEST for v in x.ravel()):
                raise OutsideError(name)
            found.append(x)
        return found

    @property
    def degree(self) -> int:
        return len(self.x) - 1

    @cached_property
    def exact(self) -> "Exact":
        """The truth."""
        return self.expand(m.exact(torch.zeros(2, 3)))

    def expand(self, shift: Any) -> "Exact":
        """The coefficients with x₀ shifted, from either side.

        Raises:
            OutsideError: if there is no value at t = 0.
        """
        x, y = ([0 if v is None else m.exact(v) for v in path] for path in (self.x, self.y))

        def at(i: int) -> list[Any]:
            t = i * H
            xs, ys = (sum(v * t**k for k, v in enumerate(path)) for path in (x, y))
            return self.of_arrays(xs + shift, ys)

        try:
            here = at(0)
        except (ZeroDivisionError, ValueError) as error:
            raise OutsideError(str(error)) from error
        sides = []
        for sign in (-1, 1):
            try:
                values = [here, *[at(sign * i) for i in range(1, SIDE + 1)]]
                sides.append([coefficients_of(v, sign * H, self.degree) for v in zip(*values, strict=True)])
            except (ZeroDivisionError, ValueError, OutsideError):
                sides.append(None)
        return Exact(here[-1], sides[0], sides[1], self.degree)


@dataclass(frozen=True)
class Exact:
    """The coefficients of all results of a chain, as seen from t < 0 and from t > 0.

    Attributes:
        value: f at t = 0.
        left: for each operation the coefficients from the left, or None if the path leaves the domain there.
        right: the same from the right.
        degree: of the last coefficient.
    """

    value: Any
    left: Sequence[Any] | None
    right: Sequence[Any] | None
    degree: int

    @cached_property
    def smooth(self) -> int:
        """The highest order to which all results are smooth along the path."""
        if self.left is None or self.right is None:
            return 0
        for k in range(1, self.degree + 1):
            for left, right in zip(self.left, self.right, strict=True):
                size = 1 + np.abs(left[k]).max()
                jumps = size > mpmath.mpf("0.01") / H**k
                if jumps or np.abs(left[k] - right[k]).max() > mpmath.mpf(10) ** -8 * size:
                    return k - 1
        return self.degree

    def coefficient(self, k: int) -> Tensor:
        """Coefficient k, for k up to `smooth`."""
        array = self.value if k == 0 else (self.right or [])[-1][k]
        return torch.tensor(np.array([[float(v) for v in row] for row in array]))


def _weights() -> list[list[Any]]:
    """Of the values at 0, 1, …, SIDE in the coefficients of their interpolating polynomial."""
    matrix = mpmath.matrix(SIDE + 1, SIDE + 1)
    for i in range(SIDE + 1):
        for k in range(SIDE + 1):
            matrix[i, k] = mpmath.mpf(i) ** k
    inverse = matrix**-1
    return [[inverse[k, i] for i in range(SIDE + 1)] for k in range(SIDE + 1)]


_WEIGHTS = _weights()


def coefficients_of(values: Sequence[Any], h: Any, degree: int) -> list[Any]:
    """The coefficients of the polynomial through the values at 0, h, 2 h, …."""
    return [sum(w * v for w, v in zip(_WEIGHTS[k], values, strict=True)) / h**k for k in range(degree + 1)]
