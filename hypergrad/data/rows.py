"""Examples that are read by their rows when they are used."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hypergrad.data.array import as_labels
from hypergrad.data.batch import Examples, require_examples
from hypergrad.data.random_examples import RandomExamples
from hypergrad.data.random_state import kept_random_state, random_state
from hypergrad.data.tree import joined, named, take


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


class PooledRows(Rows):
    """Some rows of several parts behind each other.

    Args:
        parts: the first one is read as it is in the epoch, the others as they are in the first epoch.
        positions: of the examples among those of all parts.
        name: of the new part.
    """

    def __init__(self, parts: Sequence[Rows], positions: Tensor, name: str) -> None:
        self.parts, self.positions, self.name, self.columns = parts, positions.cpu(), name, parts[0].columns
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def ragged(self) -> bool:
        return any(part.ragged for part in self.parts)

    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        positions = self.positions[torch.tensor(rows)]
        owner = torch.searchsorted(self._ends, positions, right=True)
        found, order = None, []
        for k, part in enumerate(self.parts):
            own = (owner == k).nonzero()[:, 0]
            if len(own) == 0:
                continue
            start = self._ends[k] - len(part)
            some = part.read((positions[own] - start).tolist(), epoch if k == 0 else 0)
            found = some if found is None else Examples(joined(found.X, some.X), joined(found.y, some.y))
            order.append(own)
        assert found is not None  # there is at least one row
        back = torch.cat(order).argsort()
        return Examples(take(found.X, back), found.y[back], self.columns)


class CheckedRows(Rows):
    """Rows that are checked when they are read: finite numbers, and shapes and dtypes like those of the first rows.

    Args:
        rows: of a part, not empty.
        num_first: how many rows to read now.
    """

    def __init__(self, rows: Rows, num_first: int) -> None:
        self.rows, self.name, self.columns = rows, rows.name, rows.columns
        first = range(min(num_first, len(rows)))
        self._kind = ""
        self.first = self._checked(rows.read(first, 0), first)
        self._kind = self._kind_of(self.first)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ragged(self) -> bool:
        return self.rows.ragged

    @property
    def at_once(self) -> bool:
        return self.rows.at_once

    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        return self._checked(self.rows.read(rows, epoch), rows)

    def _checked(self, examples: Examples, rows: Sequence[int]) -> Examples:
        """The examples.

        Raises:
            ValueError: if one of them is not as it must be; the message has its row.
        """
        try:
            self._require(examples)
            return examples
        except ValueError as error:
            for k, row in enumerate(rows):
                try:
                    self._require(Examples(take(examples.X, slice(k, k + 1)), examples.y[k : k + 1]))
                except ValueError as own:
                    raise ValueError(f"Example {row} of the {self.name} part: {own}") from error
            raise

    def _require(self, examples: Examples) -> None:
        require_examples(examples, self.name)
        kind = self._kind_of(examples)
        if self._kind and kind != self._kind:
            raise ValueError(
                f"The examples of the {self.name} part must have the same inputs, shape and dtype, but the first ones "
                f"are {self._kind}, and these are {kind}; pad them to one length, or convert them in __getitem__."
            )

    def _kind_of(self, examples: Examples) -> str:
        """The names, shapes and dtypes of single examples; only the axes if a function of the user may pad them."""
        entries = {f"X {name}".strip(): x for name, x in named(examples.X).items()} | {"y": as_labels(examples.y)}
        size = (lambda x: f"{x.ndim - 1} axes") if self.ragged else (lambda x: str(tuple(x.shape[1:])))
        return ", ".join(f"{name} {size(x)} {_number(x)}" for name, x in entries.items())


def _number(x: Tensor) -> str:
    """What kind of numbers a tensor holds; floating-point numbers are converted later, whatever their precision."""
    return "floating-point" if x.is_floating_point() else str(x.dtype).removeprefix("torch.")


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
