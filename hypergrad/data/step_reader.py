"""The examples of training steps, of which the last ones are kept."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from hypergrad.data.batch import Examples
from hypergrad.data.tree import named

MOST_KEPT = 32
"""Steps whose examples are kept. Compiled steps ask for those of 20 steps at a time, up to four times."""
_KEPT_BYTES = 2**28
_FEWEST_KEPT = 2
"""A step and the one before, whatever their size: an evaluation after a step asks for both."""


class StepReader:
    """The examples of any step, read in order where steps are asked for in order.

    If they are asked for backwards, as tapes do, as many steps as are kept are read in order at once.

    Args:
        begin: the examples of a step and, endlessly, of those after it; it may end where something else is read.
    """

    def __init__(self, begin: Callable[[int], Iterator[Examples]]) -> None:
        self._begin = begin
        self.close()

    def at(self, step: int) -> Examples:
        """The examples of a step ≥ 0."""
        if step not in self._kept:
            begin = max(0, step + 1 - self._room()) if step == self._last - 1 else step
            if self._next != begin:
                self._running, self._next = self._begin(begin), begin
            while self._next <= step:
                self._read()
        self._last = step
        return self._kept[step]

    def close(self) -> None:
        """Forget what was read, and what is under way."""
        self._kept: OrderedDict[int, Examples] = OrderedDict()
        self._running: Iterator[Examples] = iter(())
        self._next, self._last = -1, -1

    def _read(self) -> None:
        examples = next(self._running, None)
        if examples is None:  # something else was read in between
            self._running = self._begin(self._next)
            examples = next(self._running)
        self._kept[self._next] = examples
        self._kept.move_to_end(self._next)
        self._next += 1
        while len(self._kept) > self._room():
            self._kept.popitem(last=False)

    def _room(self) -> int:
        """How many steps to keep."""
        if not self._kept:
            return 1
        size = num_bytes(next(reversed(self._kept.values())))
        return min(max(_KEPT_BYTES // max(size, 1), _FEWEST_KEPT), MOST_KEPT)

    def __getstate__(self) -> dict[str, Any]:
        return {"_begin": self._begin, "_kept": OrderedDict(), "_running": iter(()), "_next": -1, "_last": -1}


def num_bytes(examples: Examples) -> int:
    """The size of the tensors."""
    return sum(x.numel() * x.element_size() for x in (*named(examples.X).values(), examples.y))
