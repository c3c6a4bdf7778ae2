"""The products that a linear solver computed, for use in other systems with the same operator."""

from dataclasses import dataclass, field, replace
from itertools import compress

import torch
from torch import Tensor

from hypergrad.core.operator import Matvec, Operator
from hypergrad.linsolve.window import read

MOST = 100
"""Vectors to keep. A judgement: beyond, a basis of them costs as much as products."""
SMALL = 100
"""Parameters up to which all of A is formed: CG would need about as many products. A judgement, as in `Auto`."""


@dataclass
class Recording:
    """Vectors and their products with A, kept while others compute them.

    Attributes:
        whole: parameters up to which all of A is wanted, because the solver forms it.
        is_krylov: whether a Krylov solver chose the vectors, which then know both ends of the spectrum.
    """

    whole: int = 0
    is_krylov: bool = False
    _vectors: list[Tensor] = field(default_factory=list)
    _products: list[Tensor] = field(default_factory=list)
    _lengths: list[Tensor] = field(default_factory=list)
    """Of the last vectors, which nobody looked at yet: the host would have to wait."""

    @property
    def vectors(self) -> list[Tensor]:
        """v_1, …, v_k, shape (n,) each, of norm 1."""
        self._sift()
        return self._vectors

    @property
    def products(self) -> list[Tensor]:
        """A v_1, …, A v_k."""
        self._sift()
        return self._products

    def joined(self, later: "Recording") -> "Recording":
        """The last of these vectors and all later ones, `MOST` together if there are not more later ones."""
        first = max(len(self.vectors) - max(MOST - len(later.vectors), 0), 0)
        vectors, products = (
            before[first:] + after for before, after in ((self.vectors, later.vectors), (self.products, later.products))
        )
        return Recording(_vectors=vectors, _products=products)

    def matrix(self, n: int) -> Tensor | None:
        """A, if its products with all unit vectors were recorded in their order; else None."""
        if not n <= len(self.vectors) <= 2 * max(self.whole, SMALL):
            return None
        units = torch.stack(self.vectors[:n], 1)
        return torch.stack(self.products[:n], 1) if torch.equal(units, torch.eye(n).to(units)) else None

    def watch(self, A: Operator) -> Operator:
        """A, whose products are kept; those of a compiled operator are not seen."""

        def watched(product: Matvec) -> Matvec:
            return lambda V: self._keep(V, product(V))

        make = A.approximate
        return replace(
            A,
            matvec=watched(A.matvec),
            columns=None if A.columns is None else watched(A.columns),
            approximate=None if make is None else lambda: self.watch(make()),
        )

    def _keep(self, V: Tensor, AV: Tensor) -> Tensor:
        most, pairs = max(MOST, self.whole), [(V, AV)] if V.ndim == 1 else zip(V.T, AV.T, strict=True)
        for v, Av in pairs:
            if len(self._vectors) >= most:
                self._sift()
            if len(self._vectors) < most:
                self._lengths.append(torch.linalg.vector_norm(v))
                self._vectors.append(v / self._lengths[-1])
                self._products.append(Av / self._lengths[-1])
        return AV

    def _sift(self) -> None:
        """Drop the vectors of length zero, or of one that is not finite."""
        if self._lengths:
            first = len(self._vectors) - len(self._lengths)
            keep = [True] * first + [0 < length < torch.inf for length in read(self._lengths)]
            self._vectors, self._products = (list(compress(x, keep)) for x in (self._vectors, self._products))
            self._lengths = []
