"""What a journal keeps of each record, in a few hundred bytes instead of thousands."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

_FIRST = 16
"""Rows for which a tensor has room at first."""


class KeptScalars(Sequence[Any]):
    """The scalars of records: rows that are dicts of `step` and numbers, kept as doubles and made anew when read.

    Args:
        rows: the first ones.
    """

    def __init__(self, rows: Iterable[dict[str, float]] = ()) -> None:
        self._values = array("d")
        self._tags: list[tuple[str, ...]] = []
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._starts = array("q")
        for row in rows:
            self.append(row)

    def append(self, row: dict[str, float]) -> None:
        """Keep a row."""
        tags, start = tuple(row), len(self._values)
        self._values.extend(row.values())
        self._tags[len(self) :] = [self._shared.setdefault(tags, tags)]  # in place of what an interrupt left
        self._starts.append(start)  # last: an interrupt before it leaves a row that is not counted

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        start, tags = self._starts[i], self._tags[i]
        row: dict[str, float] = dict(zip(tags, self._values[start : start + len(tags)], strict=True))
        return row | {"step": int(row["step"])}


class KeptTensors(Sequence[Any]):
    """Tensors of one shape, dtype and device, one for each record, kept in one tensor that doubles when it is full.

    Args:
        rows: the first ones.
    """

    def __init__(self, rows: Iterable[Tensor] = ()) -> None:
        self._rows: Tensor | None = None
        self._length = 0
        for row in rows:
            self.append(row)

    def append(self, row: Tensor) -> None:
        """Keep a copy of a tensor."""
        if self._rows is None:
            self._rows = row.new_empty((_FIRST, *row.shape))
        elif self._length == len(self._rows):
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows)])
        self._rows[self._length].copy_(row)
        self._length += 1

    def stacked(self, length: int) -> Tensor:
        """The first rows as a tensor of shape (length, …), which later rows do not change.

        Raises:
            ValueError: before the first row.
        """
        if self._rows is None:
            raise ValueError("There are no rows to stack yet; append one first.")
        return self._rows[:length].clone()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        if self._rows is None:
            raise IndexError(index)
        return self._rows[range(self._length)[index]]
