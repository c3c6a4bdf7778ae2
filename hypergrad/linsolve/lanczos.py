"""Estimates of the spectrum that conjugate gradient gives for free."""

import math
from dataclasses import dataclass, field

import torch


@dataclass
class Lanczos:
    """The tridiagonal matrix of k iterations of conjugate gradient, whose eigenvalues are Ritz values of M⁻¹A.

    With the steps α_i = r_iᵀz_i / p_iᵀAp_i and the ratios β_i = r_{i+1}ᵀz_{i+1} / r_iᵀz_i it has

        T_ii = 1/α_i + β_{i−1}/α_{i−1},    T_{i,i+1} = √β_i / α_i,    i = 0, …, k − 1.

    Its extreme eigenvalues lie within the spectrum and converge first, the smallest one before the iteration does: the
    residual polynomial is 1 at 0, so it is small at λ_min only with a root nearby.

    Attributes:
        steps: α_0, …, α_{k−1}, > 0.
        ratios: β_0, …, β_{k−1}, ≥ 0.

    Source: Golub & Van Loan, "Matrix computations" (2013), section 11.3.
    """

    steps: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def add(self, square: float, curvature: float, following: float) -> None:
        """Add one iteration, given rᵀz before it, pᵀAp, and rᵀz after it."""
        self.steps.append(square / curvature)
        self.ratios.append(following / square)

    def ends(self) -> tuple[float, float] | None:
        """The smallest and the largest Ritz value; None without an iteration, or if rounding made T indefinite."""
        is_sound = all(0 < alpha < math.inf for alpha in self.steps) and all(0 <= b < math.inf for b in self.ratios)
        if not self.steps or not is_sound:
            return None
        # As scipy.linalg.eigvalsh_tridiagonal, whose checks take longer than the bisection.
        from scipy.linalg.lapack import dstebz  # pyright: ignore[reportAttributeAccessIssue]

        diagonal = [1 / alpha for alpha in self.steps]
        above = [math.sqrt(beta) / alpha for alpha, beta in zip(self.steps, self.ratios, strict=True)]
        for i in range(1, len(diagonal)):
            diagonal[i] += self.ratios[i - 1] / self.steps[i - 1]
        off = above[: max(1, len(diagonal) - 1)]
        _, least, *_, failed = dstebz(diagonal, off, 2, 0.0, 1.0, 1, 1, 0.0, "E")
        _, largest, *_, failed_too = dstebz(diagonal, off, 2, 0.0, 1.0, len(diagonal), len(diagonal), 0.0, "E")
        return None if failed or failed_too else (float(least[0]), float(largest[0]))


@dataclass
class Spectrum:
    """The smallest and the largest Ritz value of all cycles of one solve, both within the spectrum."""

    least: float = math.inf
    largest: float = 0.0

    def see(self, ends: tuple[float, float] | None) -> None:
        """Add the ends that a cycle found."""
        if ends is not None:
            self.least, self.largest = min(self.least, ends[0]), max(self.largest, ends[1])

    @property
    def condition(self) -> float:
        """The largest over the smallest value, a lower bound of κ, at most 1/ε; NaN if nothing was seen."""
        if self.largest == 0:
            return math.nan
        return self.largest / max(self.least, torch.finfo(torch.float64).eps * self.largest)
