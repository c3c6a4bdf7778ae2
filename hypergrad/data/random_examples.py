"""A data set that draws random numbers when it is read, as a function of a seed, the epoch and the example."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from hypergrad.core.seed import seed_of
from hypergrad.data.batch import Examples, as_examples, noted
from hypergrad.data.collation import collated
from hypergrad.data.random_state import kept_random_state, seed_random_state

_KEPT = 32
"""Batches to keep, for tapes that return to the last steps. A judgement: most tapes return within as many."""


@dataclass(frozen=True, eq=False)
class RandomExamples:
    """Examples that are read again whenever they are used.

    While example i is read in epoch e, the random states of torch, Python and numpy are seeded by (seed, e, i), and a
    batch is collated under the seed of its first example. They are put back afterwards.

    Attributes:
        dataset: maps the position of an example to the example.
        positions: of the examples of this part in the data set.
        collate: maps a list of examples to a batch.
        name: of the part.
        seed: of all draws.
    """

    dataset: Any
    positions: Sequence[int]
    collate: Callable[[list[Any]], Any]
    name: str
    seed: int
    _kept: OrderedDict[Any, Examples] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return len(self.positions)

    def __deepcopy__(self, memo: object) -> Self:
        """This object: a copy of a problem reads the same data set."""
        return self

    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        """The examples at `rows` of this part, at least one, as they are in an epoch ≥ 0."""
        key = (epoch, tuple(rows))
        if key not in self._kept:
            self._kept[key] = self.fresh(rows, epoch)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def fresh(self, rows: Sequence[int], epoch: int) -> Examples:
        """What `read` returns, read again even if it was read before."""
        with kept_random_state():
            examples = [self._example(self.positions[row], epoch) for row in rows]
            seed_random_state(self._seed("collate", epoch, self.positions[rows[0]]))
            return self._batch(examples, rows)

    def unseeded(self, rows: Sequence[int]) -> Examples:
        """The examples at `rows` under the random states as they are."""
        return self._batch([self._at(self.positions[row]) for row in rows], rows)

    def _batch(self, examples: list[Any], rows: Sequence[int]) -> Examples:
        positions = [self.positions[row] for row in rows]
        return as_examples(collated(self.collate, examples, positions, self.name), self.name)

    def _example(self, position: int, epoch: int) -> Any:
        seed_random_state(self._seed("example", epoch, position))
        return self._at(position)

    def _at(self, position: int) -> Any:
        with noted(f"reading example {position} of {len(self.dataset)} of the {self.name} part"):
            return self.dataset[position]

    def _seed(self, purpose: str, epoch: int, position: int) -> int:
        return seed_of(purpose, self.seed, epoch, position)
