"""The sum of dF/dλ over the steps of a backward sweep, and an estimate of the terms beyond its horizon."""

import math
from dataclasses import dataclass, field

import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.training.states import Partial


@dataclass
class Tally:
    """Adds up the terms of K steps in four sums, one for each quarter of the horizon.

    Attributes:
        horizon: K, the number of steps that are summed.
        inner_steps: T ≥ K, the number of steps of the run.
        stride: steps in one call, if they are compiled; else None.
    """

    horizon: int
    inner_steps: int
    stride: int | None = None
    count: int = 0
    sums: list[Tensors] = field(default_factory=lambda: [{}, {}, {}, {}])

    @property
    def quarter(self) -> int:
        """The number of steps of a quarter, a multiple of the stride."""
        stride = self.stride or 1
        return self.horizon // (4 * stride) * stride

    def add(self, partial: Partial, steps: int) -> None:
        """Add the term of the next steps, counted from the end of training."""
        self.count += steps
        quarters_left = (self.horizon - self.count) // max(self.quarter, 1)
        add(self.sums[max(3 - quarters_left, 0)], partial)

    def merge(self) -> None:
        """Keep one sum if K = T, where the quarters tell nothing more."""
        if self.horizon == self.inner_steps:
            self.sums = [self.total(), {}, {}, {}]

    def total(self) -> Tensors:
        """The sum, without the hyperparameters that no step depends on."""
        whole: Tensors = {}
        for part in self.sums:
            add(whole, part)
        return whole

    def bias(self, grad: Tensors) -> float:
        """An estimate of ‖dropped terms‖ / ‖dF/dλ‖, the largest over the hyperparameters; 0 when K = T.

        If training contracts, the term of a step falls geometrically with its distance from the end. With B₁, B₂ and
        B₃ the sums over the last three quarters of the horizon that were visited, the factor r of a quarter is the
        larger of ‖B₃‖/‖B₂‖ and (‖B₃‖/‖B₁‖)^½, but at most 1, and the dropped quarters, 4 (T − K)/K of them, come to
        ‖B₃‖ (r + r² + …). If the terms oscillate, as with momentum, or are spread over the entries
        of a schedule, the estimate is only an order of magnitude.

        Args:
            grad: dF/dλ as estimated.

        Returns:
            The estimate; NaN if K < 4 leaves nothing to extrapolate.
        """
        if self.horizon == self.inner_steps:
            return 0.0
        if self.quarter == 0:
            return math.nan
        num_quarters = (self.inner_steps - self.horizon) / self.quarter
        ratios = [0.0]
        for name, whole in grad.items():
            first, second, third = (_norm(part[name]) if name in part else 0.0 for part in self.sums[1:])
            if third > 0:
                ratio = max(third / second if second > 0 else 1.0, (third / first) ** 0.5 if first > 0 else 1.0)
                dropped = third * _geometric(min(ratio, 1.0), num_quarters)
                ratios.append(dropped / max(_norm(whole), torch.finfo(whole.dtype).tiny))
        return max(ratios)


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
    """The sum r + r² + … of a number of terms that need not be whole, 0 < r ≤ 1."""
    return terms if ratio == 1 else ratio * (1 - ratio**terms) / (1 - ratio)
