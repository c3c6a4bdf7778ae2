"""The place of a batch among those of an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypergrad.data.minibatch import batch_of_step, steps_per_epoch


@dataclass(frozen=True)
class BatchPlace:
    """Which of the batches of an epoch a step uses; each of them once in the steps e K, …, e K + K − 1 of epoch e.

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


def place_of(
    step: int, *, size: int, batch_size: int | None, seed: int, drop_last: bool = False, fixed: bool = False
) -> BatchPlace:
    """The place of the batch that `scheduled` (`hypergrad/data/minibatch.py`) gives step `step` ≥ 0.

    With `drop_last` all batches have the same size, and the examples that an epoch leaves out do not count.
    """
    if batch_size is None or batch_size >= size:
        return WHOLE
    num = steps_per_epoch(size=size, batch_size=batch_size, drop_last=drop_last)
    index = batch_of_step(step, num=num, seed=seed, fixed=fixed)
    examples = min(batch_size, size - index * batch_size)
    return BatchPlace(index, num, 1.0 if drop_last else num * examples / size, fixed)


def common(places: Sequence[BatchPlace]) -> BatchPlace:
    """The place of a batch that is made of one batch of each of several problems, at least one.

    Its weight is the mean of theirs. It is unknown if their epochs differ in length or order.
    """
    first = places[0]
    if any((place.index, place.num_batches) != (first.index, first.num_batches) for place in places):
        return UNKNOWN
    weight = sum(place.weight for place in places) / len(places)
    return BatchPlace(first.index, first.num_batches, weight, all(place.is_fixed for place in places))
