"""Examples that are read ahead because someone has said which ones come next."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from hypergrad.data.batch import Examples
from hypergrad.data.workers import Workers


class Announced:
    """Examples of a part, as they are in the first epoch, that workers read before they are asked for.

    Args:
        workers: read them.
        name: of the part.
    """

    def __init__(self, workers: Workers, name: str) -> None:
        self._workers, self._name = workers, name
        self.announce(())

    def announce(self, batches: Sequence[Sequence[int]]) -> None:
        """Say which rows come next, in this order; what was said before does not count any more."""
        name = self._name  # a plan that refers to this object would keep it, and the processes, alive
        self._batches = deque(batches)
        self._running: Iterator[Examples] = self._workers.run((name, rows, 0) for rows in batches)

    def take(self, rows: Sequence[int]) -> Examples | None:
        """The examples at `rows`; None if they are not the next ones that were announced."""
        if self._batches and self._batches.popleft() == rows:
            examples = next(self._running, None)  # None if the workers have begun something else
            if examples is not None:
                return examples
        self.announce(())
        return None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_batches": deque(), "_running": iter(())}
