"""Which outer steps are taken."""

from dataclasses import dataclass

from hypergrad.core.validation import require_int, require_real


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """A step of the optimiser, u → u + s d, is taken only where the dev loss does not rise, else s shrinks.

    With s = 1 at first, a step whose dev loss is above the last one by more than `slack` of it, or at which nothing can
    be computed, is tried again with `shrink` times s, and each that is taken lets s grow again, up to 1. The rejected
    ones cost as much as the others. For dev losses that are the same function at every step.

    Attributes:
        shrink: what multiplies s after a rejection, in (0, 1).
        grow: what multiplies s after an acceptance, ≥ 1.
        slack: rise that is tolerated, relative to the dev loss, ≥ 0; for inner problems that are solved loosely.
        max_rejections: after as many in one step the run ends, ≥ 1.

    Source: Pedregosa, "Hyperparameter optimization with approximate gradient", ICML (2016).
    """

    shrink: float = 0.5
    grow: float = 1.25
    slack: float = 1e-8
    max_rejections: int = 10

    def __post_init__(self) -> None:
        require_real(self, "shrink", above=0, below=1)
        require_real(self, "grow", least=1)
        require_real(self, "slack", least=0)
        require_int(self, "max_rejections", least=1)

    def accepts(self, before: float, after: float) -> bool:
        """Whether a step from one dev loss to another is taken."""
        return after <= before + self.slack * abs(before)
