"""The first entries of a list that grows, without a copy."""

from collections.abc import Sequence
from typing import Any


class Prefix(Sequence[Any]):
    """The entries that a list has now; entries that are appended later are not in it.

    A copy at each step of a run would make k steps cost O(k²).

    Args:
        entries: a list, or another sequence, to which entries are only ever appended.
    """

    def __init__(self, entries: Sequence[Any]) -> None:
        self._entries, self._length = entries, len(entries)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._entries[i] for i in range(*index.indices(self._length))]
        return self._entries[range(self._length)[index]]
