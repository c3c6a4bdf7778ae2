"""Examples that are read by their rows when they are used."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import torch

from hypergrad.data.batch import Examples
from hypergrad.data.random_examples import RandomExamples
from hypergrad.data.random_state import kept_random_state, random_state
from hypergrad.data.tree import take


class Rows(ABC):
    """The examples of a part, of which some are read at a time, in any process.

    Attributes:
        name: of the part.
        columns: the names of the columns of X, if they are known.
    """

    name: str
    columns: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @abstractmethod
    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        """The examples at `rows`, at least one, as they are in an epoch ≥ 0: a function of these two alone."""

    @property
    def ragged(self) -> bool:
        """Whether two batches may have different shapes, because a function of the user makes them."""
        return False

    def __deepcopy__(self, memo: object) -> Self:
        """This object: a copy of a problem reads the same data, which need not fit in memory twice."""
        return self

    @property
    def at_once(self) -> bool:
        """Whether all examples are read at once where all are used, and not in pieces."""
        return self.ragged


class ArrayRows(Rows):
    """Rows of tensors, which stay where they are.

    Args:
        examples: all of them.
        name: of the part.
    """

    def __init__(self, examples: Examples, name: str) -> None:
        self.examples, self.name, self.columns = examples, name, examples.columns

    def __len__(self) -> int:
        return len(self.examples.y)

    @property
    def at_once(self) -> bool:
        return True

    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        if rows == range(len(self)):
            return self.examples
        X, y, columns = self.examples
        index = torch.tensor(rows, device=y.device)
        return Examples(take(X, index), y[index], columns)


class DatasetRows(Rows):
    """Rows of a data set that may draw random numbers; see `RandomExamples` for their seeds.

    Args:
        examples: reads them.
    """

    def __init__(self, examples: RandomExamples) -> None:
        self.examples, self.name = examples, examples.name
        self._size, self._draws = len(examples.dataset), False

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def ragged(self) -> bool:
        return not getattr(self.examples.collate, "is_default", False)

    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        self._require_size()
        with _one_thread():
            if self._draws:
                return self._seeded(rows, epoch)
            with kept_random_state():
                before = random_state()
                examples = self.examples.unseeded(rows)
                self._draws = random_state() != before
            return self._seeded(rows, epoch) if self._draws else examples

    def _seeded(self, rows: Sequence[int], epoch: int) -> Examples:
        return self.examples.fresh(rows, epoch)

    def _require_size(self) -> None:
        """Require that the data set is as long as at the start.

        Raises:
            ValueError: if it is not.
        """
        size = len(self.examples.dataset)
        if size != self._size:
            raise ValueError(
                f"The data set of the {self.name} part had {self._size} examples when the problem was made, and now it "
                f"has {size}; a streamed data set must not change while it is in use. Make a new problem on it."
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for the operations of torch, as in a worker process, because the order of sums depends on it."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
