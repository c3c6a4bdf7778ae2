"""The place of a batch among those of an epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPlace:
    """Which of the batches of an epoch a step uses; each of them once per epoch.

    Attributes:
        index: j, from 0 to `num_batches` − 1.
        num_batches: K, the batches of an epoch, ≥ 1.
        weight: K n_j / n for n_j of n examples, so that the mean over an epoch of what is multiplied by it is that of
            all examples; 1 if all batches have the same size.
        is_fixed: whether batch j has the same examples in every epoch.
    """

    index: int
    num_batches: int
    weight: float
    is_fixed: bool


WHOLE = BatchPlace(0, 1, 1.0, is_fixed=True)
"""That of a batch of all data."""
UNKNOWN = BatchPlace(0, 1, 1.0, is_fixed=False)
"""That of a batch of which nothing is known; it counts as much as every other."""
