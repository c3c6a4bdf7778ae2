"""A problem that holds examples in parts, of which some are read when they are used."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergrad.data.source import Part
from hypergrad.data.streamed import StreamedPart
from hypergrad.data.streamed_passes import PassPart
from hypergrad.data.tree import given, held, take_rows
from hypergrad.model.probe import EXAMPLES
from hypergrad.problem.base import InnerProblem


class PartedProblem(InnerProblem):
    """A problem whose parts are "train", "dev" and perhaps "test"."""

    X: Any
    """The inputs of train: a tensor, or `Inputs`."""
    y: Tensor
    X_dev: Any
    y_dev: Tensor
    X_test: Any
    y_test: Tensor
    batch_size: int | None

    def hold(self, parts: Mapping[str, Part | StreamedPart]) -> None:
        """Keep the examples, by the name of their part; when the problem is made."""
        self._part_names, self._streamed = tuple(parts), dict[str, str]()
        for name, part in parts.items():
            self._hold(name, part)

    def part(self, name: str, rows: Any = None) -> tuple[Any, Tensor]:
        """Inputs and targets of a part; all of them if `rows` is None.

        Args:
            name: of the part.
            rows: a tensor of positions ≥ 0, or a slice. If the part is streamed, only these are read.
        """
        streamed = self.streamed(name)
        if streamed is not None:
            return streamed.whole() if rows is None else streamed.read(_listed(rows, streamed.size()))
        suffix = "" if name == "train" else f"_{name}"
        X, y = getattr(self, f"X{suffix}"), getattr(self, f"y{suffix}")
        X = given(X)
        return (X, y) if rows is None else (take_rows(X, rows), y[rows])

    def parts_of(self, name: str, batches: Iterable[Tensor | None]) -> Iterator[tuple[Any, Tensor]]:
        """Inputs and targets of a part, for each of several `rows` as in `part`, read ahead if it is streamed."""
        streamed = self.streamed(name)
        if streamed is None:
            return (self.part(name, None if rows is None else rows.to(self.device(name))) for rows in batches)
        everything = range(streamed.size())
        return streamed.each(everything if rows is None else rows.tolist() for rows in batches)

    def first(self, name: str) -> tuple[Any, Tensor]:
        """Inputs and targets of the first examples of a part, at most `EXAMPLES`, which are in memory."""
        streamed = self.streamed(name)
        return self.part(name, slice(0, EXAMPLES)) if streamed is None else streamed.first

    def known(self, name: str) -> tuple[Any, Tensor]:
        """Inputs and targets of a part that are in memory: all of them, or the first ones if it is streamed."""
        streamed = self.streamed(name)
        return self.part(name) if streamed is None else streamed.first

    def targets(self, name: str) -> Tensor:
        """The targets of a part; if it is streamed, each example is read for them."""
        streamed = self.streamed(name)
        return self.part(name)[1] if streamed is None else streamed.targets()

    def has(self, name: str) -> bool:
        """Whether there is a part of that name."""
        return name in self._part_names

    def size(self, name: str) -> int:
        """The number of examples of a part.

        Also raised, by what it calls: ValueError if it is an `IterableDataset`.
        """
        streamed = self.streamed(name)
        return len(self.part(name)[1]) if streamed is None else streamed.size()

    def known_size(self, name: str) -> int:
        """The number of examples of a part; that of a batch if it is an `IterableDataset`."""
        return self.batch_size or 1 if isinstance(self.streamed(name), PassPart) else self.size(name)

    def check_as_read(self, check: Callable[[str, Tensor], object]) -> None:
        """Call a function of the name of a part and targets whenever examples are read that were not in memory."""
        for name in self._streamed:
            part: Any = self.streamed(name)
            part.require_targets = partial(check, name)

    def device(self, name: str) -> torch.device:
        """Where the examples of a part are when they are used."""
        streamed = self.streamed(name)
        return self.part(name)[1].device if streamed is None else streamed.like.device

    def streamed(self, name: str) -> StreamedPart | None:
        """What reads a part that is streamed; None if it is in memory."""
        return getattr(self, self._streamed[name]) if name in self._streamed else None

    def announce(self, name: str, batches: Sequence[Any]) -> None:
        """Say by which `rows` examples of a part will be asked for next, so that they are read ahead if streamed."""
        streamed = self.streamed(name)
        if streamed is not None:
            streamed.announce([_listed(rows, streamed.size()) for rows in batches])

    def _hold(self, name: str, part: Part | StreamedPart) -> None:
        """Keep a part, in buffers and modules that move with the problem."""
        suffix = "" if name == "train" else f"_{name}"
        if isinstance(part, StreamedPart):
            self.add_module(f"reader{suffix}", part)
            self._streamed[name] = f"reader{suffix}"
            return
        X = held(part.X)
        if isinstance(X, Tensor):
            self.register_buffer(f"X{suffix}", X)
        else:
            self.add_module(f"X{suffix}", X)
        self.register_buffer(f"y{suffix}", part.y)


def _listed(rows: Any, size: int) -> Sequence[int]:
    """Rows, given as a slice or as a tensor or list of positions, some of which may count from the end."""
    if isinstance(rows, slice):
        return range(size)[rows]
    return [range(size)[row] for row in (rows.tolist() if isinstance(rows, Tensor) else rows)]
