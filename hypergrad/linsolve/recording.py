"""The products that a linear solver computed, for use in other systems with the same operator."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypergrad.core.operator import Matvec, Operator

MOST = 100
"""Vectors to keep. A judgement: beyond, a basis of them costs as much as products."""
SMALL = 100
"""Parameters up to which all of A is formed: CG would need about as many products. A judgement, as in `Auto`."""


@dataclass
class Recording:
    """Vectors and their products with A, kept while others compute them.

    Attributes:
        vectors: v_1, …, v_k, shape (n,) each, of norm 1.
        products: A v_1, …, A v_k.
        whole: parameters up to which all of A is wanted, because the solver forms it.
        is_krylov: whether a Krylov solver chose the vectors, which then know both ends of the spectrum.
    """

    vectors: list[Tensor] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)
    whole: int = 0
    is_krylov: bool = False

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
        pairs = [(V, AV)] if V.ndim == 1 else zip(V.T, AV.T, strict=True)
        for v, Av in pairs:
            length = torch.linalg.vector_norm(v)
            if len(self.vectors) < max(MOST, self.whole) and length > 0:
                self.vectors.append(v / length)
                self.products.append(Av / length)
        return AV
