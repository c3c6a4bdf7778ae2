"""The promise of a search: what people use without gradients, on the same problems."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.validation import require_int, require_real


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """Proposes points in a box around the start, in unconstrained values: u₀ ± width in each of n entries.

    For a positive hyperparameter u is log λ, and a width of 7 is a factor of e⁷ ≈ 1100 to both sides. The first point
    is the start itself, the default that a search has to beat.

    Attributes:
        width: half the side of the box, > 0.
        seed: of what is drawn.
    """

    width: float = 7.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_real(self, "width", above=0)
        require_int(self, "seed", least=0)

    @abstractmethod
    def points(self, start: Tensor, num_trials: int | None, losses: list[float]) -> Iterator[Tensor]:
        """The points to try after the start, each of shape (n,).

        Args:
            start: u₀, shape (n,).
            num_trials: how many are to come, ≥ 0; None when that is not known, and another budget ends the search.
            losses: the dev losses of the points so far, that of the start first; whoever asks for the next point has
                appended that of the last.
        """
