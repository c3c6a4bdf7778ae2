"""The sum of dF/dλ over the steps of a backward sweep, and what the steps beyond its horizon would have added."""

import math
from dataclasses import dataclass, field

import torch

from hypergrad.autodiff import Tensors
from hypergrad.tape.base import Partial
from hypergrad.tape.graph import PIECES


@dataclass
class Tally:
    """Adds up the terms of K steps, those of the last and the second but last quarter on their own.

    Attributes:
        horizon: K, the steps that are summed.
        inner_steps: T ≥ K, the steps of the run.
    """

    horizon: int
    inner_steps: int
    count: int = 0
    sums: list[Tensors] = field(default_factory=lambda: [{}, {}, {}])

    @property
    def quarter(self) -> int:
        """The length of a quarter, in whole stretches of any tape."""
        return PIECES // 4 * (self.horizon // PIECES) or self.horizon // 4

    def add(self, partial: Partial, length: int) -> None:
        """Add the term of the next stretch of steps, counted from the end of training."""
        self.count += length
        quarters_left = (self.horizon - self.count) // max(self.quarter, 1)
        add(self.sums[max(2 - quarters_left, 0)], partial)

    def total(self) -> Tensors:
        """The sum, without the hyperparameters that no step depends on."""
        whole: Tensors = {}
        for part in self.sums:
            add(whole, part)
        return whole

    def bias(self, grad: Tensors) -> float:
        """An estimate of ‖dropped terms‖ / ‖dF/dλ‖, the largest over the hyperparameters; 0 when K = T.

        Where training contracts, what step t adds falls geometrically with its distance from the end. With B₂ and B₃
        the sums over the last two quarters that were visited, r = ‖B₃‖/‖B₂‖ is the factor of a quarter, and the dropped
        ones come to ‖B₃‖ (r + r² + … ) with 4 (T − K)/K terms.

        Args:
            grad: dF/dλ as estimated.

        Returns:
            The estimate; NaN where K < 4 leaves nothing to extrapolate, infinity where the terms grow without bound.
        """
        if self.horizon == self.inner_steps:
            return 0.0
        if self.quarter == 0:
            return math.nan
        num_quarters = (self.inner_steps - self.horizon) / self.quarter
        found = [0.0]
        for name, last in self.sums[2].items():
            before = self.sums[1].get(name)
            size, previous, whole = (0.0 if x is None else _norm(x) for x in (last, before, grad[name]))
            dropped = size * _geometric(size / previous if previous > 0 else 1.0, num_quarters) if size > 0 else 0.0
            found.append(dropped / whole if whole > 0 else math.inf if dropped > 0 else 0.0)
        return max(found)


def add(total: Tensors, partial: Partial) -> None:
    """Add a term of dF/dλ to a sum, in place; None adds nothing."""
    for name, term in partial.items():
        if term is None:
            continue
        if name in total:
            total[name] += term
        else:
            total[name] = term.clone()  # it may be the adjoint itself


def _norm(x: torch.Tensor) -> float:
    return torch.linalg.vector_norm(x).item()


def _geometric(ratio: float, terms: float) -> float:
    """The sum r + r² + … of a number of terms that need not be whole."""
    if ratio == 1:
        return terms
    try:
        return ratio * (1 - ratio**terms) / (1 - ratio)
    except OverflowError:
        return math.inf
