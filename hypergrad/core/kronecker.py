"""Kronecker-factored curvature of the layers of a network, and its inverse."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError

_MEAN_DAMPING = 0.1
"""Part of a layer's mean eigenvalue that damps it where no damping is given, as in Grosse et al. (2023)."""


@dataclass(frozen=True)
class KroneckerSettings:
    """How factors are made; see `KFAC` for the values.

    Attributes:
        corrected: whether the eigenvalues are those of EK-FAC.
        fisher: the curvature of the loss in its outputs, "type-2", "mc" or "empirical".
        approximation: of layers that are applied at several places, "expand" or "reduce".
        num_batches: inner batches to make them from, ≥ 1.
        refresh: outer steps for which they may be used, ≥ 1.
    """

    corrected: bool = False
    fisher: str = "type-2"
    approximation: str = "expand"
    num_batches: int = 1
    refresh: int = 1


class Layer(NamedTuple):
    """The curvature Q_o diag(values) Q_iᵀ of a layer's matrix [W b], which has m outputs and k inputs.

    Attributes:
        weight: where W begins in the flat parameters; its m rows are one after the other.
        bias: where b begins, the last input of which is then 1; None without one.
        inputs: Q_i, the orthonormal eigenvectors of the second moments of the inputs, shape (k, k).
        outputs: Q_o, those of the second moments of the gradients by the outputs, shape (m, m).
        values: the curvature along each pair of eigenvectors, ≥ 0, shape (m, k).
    """

    weight: int
    bias: int | None
    inputs: Tensor
    outputs: Tensor
    values: Tensor

    def read(self, v: Tensor) -> Tensor:
        """The entries of this layer in a flat vector, as [W b], shape (m, k)."""
        m, k = self.values.shape
        if self.bias is None:
            return v[self.weight : self.weight + m * k].view(m, k)
        matrix = v[self.weight : self.weight + m * (k - 1)].view(m, k - 1)
        return torch.cat([matrix, v[self.bias : self.bias + m, None]], 1)

    def write(self, matrix: Tensor, v: Tensor) -> None:
        """Put [W b], shape (m, k), into a flat vector."""
        m, k = self.values.shape
        if self.bias is not None:
            v[self.bias : self.bias + m] = matrix[:, -1]
            matrix, k = matrix[:, :-1], k - 1
        v[self.weight : self.weight + m * k] = matrix.reshape(-1)

    def to(self, like: Tensor) -> "Layer":
        """The same in the dtype and on the device of a tensor."""
        return self._replace(inputs=self.inputs.to(like), outputs=self.outputs.to(like), values=self.values.to(like))

    def damped(self, diagonal: Tensor, damping: float | None, *, heuristic: bool) -> "Layer":
        """The curvature plus a diagonal matrix D, of which the diagonal in the eigenbasis is kept, and plus δ I.

        Args:
            diagonal: of D, flat, of all parameters.
            damping: δ; None for a tenth of the mean eigenvalue of this layer.
            heuristic: whether to damp both factors and not their product: with B ⊗ A, D of mean d and
                π² = tr A/k : tr B/m, the values are those of (B + √d/π I) ⊗ (A + √d π I).

        Raises:
            IndefiniteError: if the result is singular.
        """
        added = self.outputs.square().T @ self.read(diagonal) @ self.inputs.square()
        added = added + (_MEAN_DAMPING * self.values.mean() if damping is None else damping)
        values = self.values + added
        if heuristic:
            values = self.values + _of_both_factors(self.values, added.mean().clamp(min=0))
        least, largest = values.min().item(), values.max().item()
        if not least > torch.finfo(values.dtype).eps * largest:
            m, k = values.shape
            raise IndefiniteError(
                f"The Kronecker-factored curvature of a layer with {m} outputs and {k} inputs is singular: its "
                f"eigenvalues go from {least:.1e} to {largest:.1e}. Set a damping > 0 in KFAC or EKFAC, such as "
                f"{1e-3 * largest or 1e-3:.1e}, or add an L2 penalty on these parameters."
            )
        return self._replace(values=values)

    def solve(self, v: Tensor) -> Tensor:
        """The inverse applied to this layer's part [W b] of a flat vector, shape (m, k)."""
        turned = self.outputs.T @ self.read(v) @ self.inputs
        return self.outputs @ (turned / self.values) @ self.inputs.T


def _of_both_factors(values: Tensor, mean: Tensor) -> Tensor:
    """What damping both factors adds, from the means of the products of their eigenvalues alone."""
    total = values.mean().clamp(min=torch.finfo(values.dtype).tiny)
    return (mean / total).sqrt() * (values.mean(0, keepdim=True) + values.mean(1, keepdim=True)) + mean


def eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a symmetric matrix, in double precision where single precision fails."""
    with suppress(RuntimeError):  # of which torch.linalg.LinAlgError is one
        values, vectors = torch.linalg.eigh(x)
        if values.isfinite().all() and vectors.isfinite().all():
            return values, vectors
    # LAPACK fails so for second moments of inputs of which many are always 0.
    values, vectors = torch.linalg.eigh(x.double())
    return values.to(x), vectors.to(x)


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker-factored curvature of an operator, which is made on demand.

    Attributes:
        factors: makes the factors of the layers that have some, or raises CannotApproximateError with the reason.
        diagonal: makes the diagonal of what the operator is besides, such as penalties, shape (n,).
        shift: a multiple of the identity that the operator is besides.
        rows: makes the rows of J, at most as many as are asked for and a few at a time. JᵀJ is the part of the
            curvature that stems from few examples. It raises CannotApproximateError with the reason; None if nothing is
            known of examples.
    """

    factors: Callable[[KroneckerSettings], list[Layer]]
    diagonal: Callable[[], Tensor]
    shift: float = 0.0
    rows: Callable[[int], Iterator[Tensor]] | None = None

    def shifted(self, damping: float) -> "Kronecker":
        """That of the operator plus damping · I."""
        return replace(self, shift=self.shift + damping)
