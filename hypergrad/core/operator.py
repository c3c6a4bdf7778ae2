"""A linear operator: its products, and what else is known about it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.kronecker import Kronecker

Matvec = Callable[[Tensor], Tensor]
"""v ↦ A v, of shape (n,), for square A; it must return a new tensor and not change its argument."""


def columns_of(matvec: Matvec) -> Matvec:
    """V ↦ A V on matrices of shape (n, k), in one batched call of a matvec that `torch.vmap` can transform."""

    def product(V: Tensor) -> Tensor:
        # Not by out_dims=1: torch then fails on a product that does not depend on its vector, as where A = 0.
        return torch.vmap(matvec, in_dims=1)(V).T

    return product


class CannotApproximateError(Exception):
    """There is no cheaper operator; the message says why."""


@dataclass(frozen=True)
class Operator:
    """v ↦ A v on vectors of shape (n,), and on the columns of a matrix of shape (n, k).

    Attributes:
        matvec: v ↦ A v on vectors of shape (n,).
        columns: V ↦ A V on matrices of shape (n, k); None means one product after the other.
        shapes: of the tensors that a vector of shape (n,) consists of, in order; None if unknown.
        symmetric: whether A = Aᵀ.
        dtype: of its vectors; None if unknown.
        name: for remarks.
        compile: turns a pure function f(product, *tensors) into a compiled f(*tensors); None if it cannot.
        is_rounded: whether its products have a lower precision than those that check the result.
        inaccuracy: measures the relative error of its products, on demand; None if they are exact to rounding.
        approximate: makes a cheaper operator near A, maybe of lower precision, on demand, or raises
            CannotApproximateError; None if there is none.
        kronecker: makes the Kronecker factors of the curvature, on demand; None if nothing is known of layers.
    """

    matvec: Matvec
    columns: Matvec | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    symmetric: bool = True
    dtype: torch.dtype | None = None
    name: str = "the product"
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    is_rounded: bool = False
    inaccuracy: Callable[[], float] | None = None
    approximate: "Callable[[], Operator] | None" = None
    kronecker: Kronecker | None = None

    @classmethod
    def of(cls, matvec: "Matvec | Operator") -> "Operator":
        """The operator itself, or one that knows only its products."""
        return matvec if isinstance(matvec, Operator) else cls(matvec)

    def __call__(self, V: Tensor) -> Tensor:
        if V.ndim == 1:
            return self.matvec(V)
        if self.columns is not None:
            return self.columns(V)
        return torch.stack([self.matvec(v) for v in V.T], dim=1)

    def shifted(self, damping: float) -> "Operator":
        """A + damping · I; itself if damping is 0."""
        if damping == 0:
            return self

        def shift(product: Matvec) -> Matvec:
            return lambda V: product(V).add(V, alpha=damping)

        make, compiled = self.approximate, self.compile

        def compile_shifted(f: Callable[..., Any]) -> Callable[..., Any]:
            assert compiled is not None
            run = compiled(_with_shift(f))
            # On the device of the others, and filled there, so that nothing waits for a copy.
            return lambda *tensors: run(tensors[0].new_full((), damping), *tensors)

        return replace(
            self,
            compile=None if compiled is None else compile_shifted,
            matvec=shift(self.matvec),
            columns=None if self.columns is None else shift(self.columns),
            approximate=None if make is None else lambda: _shifted_near(make(), damping),
            kronecker=None if self.kronecker is None else self.kronecker.shifted(damping),
        )


def _shifted_near(near: Operator, damping: float) -> Operator:
    """An approximate operator plus damping · I.

    Raises:
        CannotApproximateError: if its format, which may be coarser than that of the exact one, cannot hold the damping.
    """
    if near.dtype is not None and abs(damping) > torch.finfo(near.dtype).max:
        raise CannotApproximateError(f"a damping of {damping:.1e} is infinite in {near.name}")
    return near.shifted(damping)


@cache  # one function for each f: compiled functions are found again by it
def _with_shift(f: Callable[..., Any]) -> Callable[..., Any]:
    """(product, damping, *tensors) ↦ f(v ↦ product(v) + damping v, *tensors)."""
    return lambda product, damping, *tensors: f(lambda v: product(v) + damping * v, *tensors)
