"""Where the two losses are linearised, and how."""

from dataclasses import dataclass
from typing import Any

from hypergrad.core.autodiff import Tensors
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Product


@dataclass(frozen=True)
class Point:
    """(w, λ) with an inner and an outer batch.

    Attributes:
        oracle: the inner loss at λ on the inner batch.
        params: w.
        outer_batch: the batch of the outer loss.
        product: how products with the derivatives of φ are formed.
    """

    oracle: Oracle
    params: Tensors
    outer_batch: Any
    product: Product

    def objection(self, ahead: Tensors) -> str:
        """Why a restriction of the problem may not hold at the solution, see `InnerProblem.objection`."""
        return self.oracle.problem.objection(self.params, ahead, self.oracle.hparams, self.oracle.batch)
