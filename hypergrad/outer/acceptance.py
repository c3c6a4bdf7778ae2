"""Which outer steps are accepted."""

from dataclasses import dataclass

from hypergrad.core.validation import require_int, require_real


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Accepts a step of the optimiser, u → u + s d, only if the dev loss does not rise; otherwise s shrinks.

    s begins at 1. A step is rejected if its dev loss exceeds the last one by more than `slack` of it, or if it cannot
    be computed; it is then tried again with `shrink` times s. After each accepted step s grows again, up to 1. A
    rejected step costs as much as an accepted one. For dev losses that are the same function at every step.

    Attributes:
        shrink: what multiplies s after a rejection, in (0, 1).
        grow: what multiplies s after an acceptance, ≥ 1.
        slack: allowed rise, relative to the dev loss, ≥ 0; for inner problems that are solved loosely.
        max_rejections: the run ends after more rejections than this in one step, ≥ 1.

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
        """Whether a step from dev loss `before` to dev loss `after` is accepted."""
        return after <= before + self.slack * abs(before)
