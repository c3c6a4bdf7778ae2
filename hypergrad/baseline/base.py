"""The promise of a search: hyperparameter tuning without gradients, on the same problems."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.validation import require_int, require_real


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """Proposes points in a box around the start, in unconstrained values: u₀ ± width in each of n entries.

    For a positive hyperparameter u is log λ, and a width of 7 is a factor of e⁷ ≈ 1100 in both directions. The first
    point is the start itself, which the search has to improve.

    Attributes:
        width: half the side of the box, > 0.
        seed: of the random points.
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
            num_trials: the number of points, ≥ 0; None if it is not known, because another budget ends the search.
            losses: the dev losses of the points so far, the start first; the caller appends the loss of a point before
                it asks for the next one.
        """
