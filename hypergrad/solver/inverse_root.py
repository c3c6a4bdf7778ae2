"""A schedule that falls as a power of the step."""

from dataclasses import dataclass

from hypergrad.core.validation import require_real
from hypergrad.solver.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class InverseRoot(Schedule):
    """A fall without an end: factor(t) = (1 + t)^(−power).

    The steps of stochastic methods, which converge if Σ factor diverges and Σ factor² does not, or grows slowly.

    Attributes:
        power: > 0 and ≤ 1; ½ is the inverse square root.

    Source: Robbins & Monro, "A stochastic approximation method", Annals of mathematical statistics (1951).
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_real(self, "power", above=0, most=1)

    def factor(self, t: int) -> float:
        return (1 + t) ** -self.power
