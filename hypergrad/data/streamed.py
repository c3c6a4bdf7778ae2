"""A part whose examples are read when they are used, and placed as the model needs them."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hypergrad.data.array import as_labels
from hypergrad.data.batch import Examples
from hypergrad.data.passes import Passes, PassReader, digest
from hypergrad.data.rows import CheckedRows
from hypergrad.data.step_reader import StepReader
from hypergrad.data.tree import given, held
from hypergrad.data.workers import Key, Workers

Placed = tuple[Any, Tensor]
"""Inputs and targets as the model gets them."""
Schedule = Callable[[int], tuple[Tensor | None, int]]
"""Maps a training step to its rows, None for all of them, and its epoch."""


class StreamedPart(nn.Module):
    """A part of which a few examples are in memory.

    Its buffers move with the problem, and examples are read onto their device and in their dtype.

    Args:
        first: the first examples.
        others: further ones, for the digest by which a run knows its data.
        like: a tensor on the device and in the dtype of the model.
        name: of the part.
    """

    like: Tensor
    first_y: Tensor
    digest: Tensor

    def __init__(self, first: Examples, others: Examples, like: Tensor, name: str) -> None:
        super().__init__()
        self.name, self.columns = name, first.columns
        self.register_buffer("like", like.detach().new_empty(0))
        self.register_buffer("digest", torch.tensor(list(digest(first) + digest(others)), dtype=torch.uint8))
        X, y = self.placed(first)
        if isinstance(X, Tensor):
            self.register_buffer("first_X", X)
        else:
            self.first_X: Any = held(X)
        self.register_buffer("first_y", y)
        self.require_targets: Callable[[Tensor], object] | None = None
        """Raises an error if targets, shape (n, …) on the CPU, do not fit the model and the loss."""

    @property
    def first(self) -> Placed:
        """A few examples."""
        return given(self.first_X), self.first_y

    @abstractmethod
    def size(self) -> int:
        """The number of examples.

        Raises:
            ValueError: if it is not known.
        """

    def rows_at(self, step: int) -> Tensor | None:
        """The rows of a training step ≥ 0; None if they are all, or not known."""
        return None

    @abstractmethod
    def targets(self) -> Tensor:
        """All targets, for which all examples are read once.

        Raises:
            ValueError: if the part cannot be read by rows.
        """

    @abstractmethod
    def at_step(self, step: int) -> Placed:
        """The examples of a training step ≥ 0."""

    @abstractmethod
    def read(self, rows: Sequence[int]) -> Placed:
        """The examples at some rows, as they are in the first epoch.

        Raises:
            ValueError: if the part cannot be read by rows.
        """

    @abstractmethod
    def whole(self) -> Placed:
        """All examples, as they are in the first epoch."""

    @abstractmethod
    def each(self, batches: Iterable[Sequence[int]]) -> Iterator[Placed]:
        """The examples of each of some sequences of rows, read ahead, as they are in the first epoch.

        Raises:
            ValueError: if the part cannot be read by rows.
        """

    @abstractmethod
    def close(self) -> None:
        """End what reads ahead; it begins again when it is needed."""

    def placed(self, examples: Examples) -> Placed:
        """Examples on the device and in the dtype of the model; integer targets are int64."""
        X, y, _ = examples
        return tree_map(self._moved, X), self._moved(as_labels(y))

    def _checked(self, examples: Examples) -> Placed:
        """The examples, after a check of their targets; what reads ahead ends if they fail."""
        try:
            if self.require_targets is not None:
                self.require_targets(as_labels(examples.y))
            return self.placed(examples)
        except BaseException:
            self.close()
            raise

    def _moved(self, x: Tensor) -> Tensor:
        like = self.like
        moved = x.to(like.device, non_blocking=True)
        return moved.to(like.dtype) if x.is_floating_point() and like.is_floating_point() else moved


class RowPart(StreamedPart):
    """A part that can be read by rows.

    Args:
        rows: its examples.
        workers: read them; shared by the parts of a problem.
        schedule: the rows and the epoch of a training step, if this part is trained on.
        like: a tensor on the device and in the dtype of the model.
        chunk: rows to read at a time where all are read, ≥ 1.
    """

    def __init__(self, rows: CheckedRows, workers: Workers, schedule: Schedule, like: Tensor, chunk: int) -> None:
        num, few = len(rows), len(rows.first.y)
        spread = [k * (num - 1) // few for k in range(1, few + 1)]
        super().__init__(rows.first, rows.read(spread, 0), like, rows.name)
        self.rows, self.workers, self.chunk, self._schedule = rows, workers, chunk, schedule
        self._targets: Tensor | None = None
        workers.parts[rows.name] = rows
        self._steps = StepReader(partial(_from_step, workers, rows.name, num, schedule))

    def size(self) -> int:
        return len(self.rows)

    def rows_at(self, step: int) -> Tensor | None:
        return self._schedule(step)[0]

    def targets(self) -> Tensor:
        if self._targets is None:
            self._targets = torch.cat([y for _, y in self.each(self._chunks())])
        return self._targets.to(self.like.device)

    def at_step(self, step: int) -> Placed:
        self.workers.pin = self.like.is_cuda
        return self._checked(self._steps.at(step))

    def read(self, rows: Sequence[int]) -> Placed:
        """Some examples, read in this process, as they are in the first epoch."""
        return self._checked(self.rows.read(rows, 0))

    def whole(self) -> Placed:
        if self.rows.at_once:
            return self.read(range(self.size()))
        found = list(self.each(self._chunks()))
        X = tree_map(lambda *xs: torch.cat(xs), *(X for X, _ in found))
        return X, torch.cat([y for _, y in found])

    def each(self, batches: Iterable[Sequence[int]]) -> Iterator[Placed]:
        self.workers.pin = self.like.is_cuda
        plan: Iterator[Key] = ((self.name, rows, 0) for rows in batches)
        for examples in self.workers.run(plan):
            yield self._checked(examples)

    def close(self) -> None:
        self._steps.close()
        self.workers.close()

    def _chunks(self) -> list[range]:
        num = self.size()
        return [range(num)[k : k + self.chunk] for k in range(0, num, self.chunk)]


class PassPart(StreamedPart):
    """A part that can be read in order only, such as an `IterableDataset`.

    Args:
        passes: its batches.
        num_first: examples to keep in memory, ≥ 1.
        like: a tensor on the device and in the dtype of the model.
        is_ahead: whether to read in another process.
    """

    def __init__(self, passes: Passes, num_first: int, like: Tensor, *, is_ahead: bool) -> None:
        first = passes.first(num_first)
        super().__init__(first, first, like, passes.name)
        self.reader = PassReader(passes, is_ahead=is_ahead)
        self._steps = StepReader(self.reader.run)

    def size(self) -> int:
        raise ValueError(self._refusal("has no number of examples"))

    def targets(self) -> Tensor:
        raise ValueError(self._refusal("cannot be read by rows"))

    def at_step(self, step: int) -> Placed:
        self.reader.pin = self.like.is_cuda
        return self._checked(self._steps.at(step))

    def read(self, rows: Sequence[int]) -> Placed:
        raise ValueError(self._refusal("cannot be read by rows"))

    def whole(self) -> Placed:
        return self._checked(self.reader.passes.whole())

    def each(self, batches: Iterable[Sequence[int]]) -> Iterator[Placed]:
        raise ValueError(self._refusal("cannot be read by rows"))

    def close(self) -> None:
        self._steps.close()
        self.reader.close()

    def _refusal(self, what: str) -> str:
        return (
            f"The {self.name} part is an IterableDataset, which {what}. A weight for each example, folds, a final "
            "training on train and dev, batches of dev and running averages need that; write it as a "
            "torch.utils.data.Dataset with __getitem__ and __len__."
        )


def _from_step(workers: Workers, name: str, size: int, schedule: Schedule, step: int) -> Iterator[Examples]:
    """The examples of a step and, endlessly, of those after it."""

    def plan() -> Iterator[Key]:
        for t in count(step):
            rows, epoch = schedule(t)
            yield name, range(size) if rows is None else rows.tolist(), epoch

    return workers.run(plan())


@contextmanager
def reading(problem: nn.Module) -> Iterator[None]:
    """A context at whose end nothing reads ahead for a problem any more; it begins again when it is needed."""
    try:
        yield
    finally:
        for part in problem.modules():
            if isinstance(part, StreamedPart):
                part.close()
