"""A part whose examples are read when they are used, and placed as the model needs them."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.data.array import as_labels
from hypergrad.data.batch import Examples
from hypergrad.data.checked_rows import require_each
from hypergrad.data.passes import digest
from hypergrad.data.tree import given, held

Placed = tuple[Any, Tensor]
"""Inputs and targets as the model gets them."""


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

    def announce(self, batches: Sequence[Sequence[int]]) -> None:
        """Say which rows `read` will be asked for next, so that they are read ahead; by default they are not."""

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

    def _checked(self, examples: Examples, rows: Callable[[], Iterable[object]]) -> Placed:
        """The examples, after a check of their targets; what reads ahead ends if they fail.

        Args:
            examples: what was read.
            rows: returns what an error calls each of them.
        """
        require = self.require_targets
        try:
            if require is not None:
                require_each(lambda some: require(as_labels(some.y)), examples, rows, self.name)
            return self.placed(examples)
        except BaseException:
            self.close()
            raise

    def _moved(self, x: Tensor) -> Tensor:
        like = self.like
        moved = x.to(like.device, non_blocking=True)
        return moved.to(like.dtype) if x.is_floating_point() and like.is_floating_point() else moved


@contextmanager
def reading(problem: nn.Module) -> Iterator[None]:
    """A context at whose end nothing reads ahead for a problem any more; it begins again when it is needed."""
    try:
        yield
    finally:
        for part in problem.modules():
            if isinstance(part, StreamedPart):
                part.close()
