"""A part whose examples are read by their rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, tee

import torch
from torch import Tensor

from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.data.announced import Announced
from hypergrad.data.batch import Examples
from hypergrad.data.checked_rows import CheckedRows
from hypergrad.data.own_rows import own_rows
from hypergrad.data.step_reader import StepReader
from hypergrad.data.streamed import Placed, StreamedPart
from hypergrad.data.workers import Key, Workers

Schedule = Callable[[int], tuple[Tensor | None, int]]
"""Maps a training step to its rows, None for all of them, and its epoch."""


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
        self._announced = Announced(workers, rows.name)
        self._targets: Tensor | None = None
        workers.parts[rows.name] = rows
        self._steps = StepReader(partial(_from_step, workers, rows.name, num, schedule))
        self._own_steps: dict[tuple[int, int], tuple[Schedule, StepReader]] = {}

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
        return self._checked(self._steps.at(step), lambda: _rows_of(self._schedule, step, self.size()))

    def own_at_step(self, step: int, rank: int, world: int) -> Placed:
        """Of the examples of a training step, those of process `rank` of `world`, and the first one if it has none."""
        self.workers.pin = self.like.is_cuda
        if (rank, world) not in self._own_steps:
            mine = partial(_own_rows_at, self._schedule, self.size(), rank, world)
            begin = partial(_from_step, self.workers, self.name, self.size(), mine)
            self._own_steps[rank, world] = mine, StepReader(begin)
        schedule, steps = self._own_steps[rank, world]
        return self._checked(steps.at(step), lambda: _rows_of(schedule, step, self.size()))

    def read(self, rows: Sequence[int]) -> Placed:
        """Some examples as they are in the first epoch, read in this process if they were not announced."""
        examples = self._announced.take(rows)
        return self._checked(self.rows.read(rows, 0) if examples is None else examples, lambda: rows)

    def announce(self, batches: Sequence[Sequence[int]]) -> None:
        self.workers.pin = self.like.is_cuda
        self._announced.announce(batches)

    def whole(self) -> Placed:
        if self.rows.at_once:
            return self.read(range(self.size()))
        found = list(self.each(self._chunks()))
        X = tree_map(lambda *xs: torch.cat(xs), *(X for X, _ in found))
        return X, torch.cat([y for _, y in found])

    def each(self, batches: Iterable[Sequence[int]]) -> Iterator[Placed]:
        self.workers.pin = self.like.is_cuda
        name = self.name  # a plan that refers to this object would keep it, and the processes, alive
        batches, checked = tee(batches)
        plan: Iterator[Key] = ((name, rows, 0) for rows in batches)
        for examples, rows in zip(self.workers.run(plan), checked, strict=False):
            yield self._checked(examples, lambda rows=rows: rows)

    def close(self) -> None:
        self._announced.announce(())
        self._steps.close()
        for _, steps in self._own_steps.values():
            steps.close()
        self.workers.close()

    def _chunks(self) -> list[range]:
        num = self.size()
        return [range(num)[k : k + self.chunk] for k in range(0, num, self.chunk)]


def _from_step(workers: Workers, name: str, size: int, schedule: Schedule, step: int) -> Iterator[Examples]:
    """The examples of a step and, endlessly, of those after it."""

    def plan() -> Iterator[Key]:
        for t in count(step):
            yield name, _rows_of(schedule, t, size), schedule(t)[1]

    return workers.run(plan())


def _own_rows_at(schedule: Schedule, size: int, rank: int, world: int, step: int) -> tuple[Tensor, int]:
    """The rows of one process at a step, and its epoch."""
    rows, epoch = schedule(step)
    rows = torch.arange(size) if rows is None else rows
    return rows[own_rows(len(rows), rank, world).rows], epoch


def _rows_of(schedule: Schedule, step: int, size: int) -> Sequence[int]:
    """The rows of a step of a part with `size` examples."""
    rows, _ = schedule(step)
    return range(size) if rows is None else rows.tolist()
