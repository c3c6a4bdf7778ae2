"""A compiled function called again and again, each time with what the last call returned."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hypergrad.compile.cuda_graph import Replay, common_gpu
from hypergrad.compile.inductor import InductorProgram
from hypergrad.compile.tracing import in_one_line

Column = Tensor | Sequence[Tensor]
"""One argument of a body in K calls: stacked, of shape (K, *shape), or one tensor for each call."""


class Passed(NamedTuple):
    """The results of K calls.

    Attributes:
        carried: what is carried on after the last call.
        kept: of the values that were asked for, those before each call, stacked: of shape (K, *shape).
        extras: the other results of each call, stacked.
    """

    carried: list[Tensor]
    kept: list[Tensor]
    extras: list[Tensor]


@dataclass(frozen=True)
class Loop:
    """Calls (shared, carried, row) ↦ (carried, extras) for several rows. On a GPU all calls are one CUDA graph.

    Attributes:
        body: the function; (*carried, *row) are its later arguments.
        num_carried: how many of its results are carried on.
        backwards: whether the last row comes first.
    """

    body: InductorProgram
    num_carried: int
    backwards: bool = False
    _replays: dict[object, Replay] = field(default_factory=dict, repr=False)
    _refusals: list[str] = field(default_factory=list, repr=False)

    def run(
        self, shared: list[Tensor], carried: list[Tensor], columns: Sequence[Column], keep: tuple[int, ...] = ()
    ) -> Passed:
        """The results of the calls, until the next run; `own` makes them last.

        Args:
            shared: of `body.prepare`; the same list in all runs with the same early arguments.
            carried: before the first call, contiguous.
            columns: the rows by column, at least one of them.
            keep: which of the carried values to return as they were before each call.
        """
        if not self._is_replayed([*shared, *carried]):
            return self._repeat(shared, carried, _rows(columns), keep)
        tensors, places = _distinct(columns)
        key = (places, keep, *(len(x) for x in columns if isinstance(x, Tensor)))
        if key not in self._replays:
            try:
                self._replays[key] = self._record(shared, [*carried, *tensors], places, keep)
            except Exception as error:  # the driver or an operation may refuse to be recorded
                self._refusals.append(in_one_line(error))
                return self._repeat(shared, carried, _rows(columns), keep)
        return self._replays[key](shared, [*carried, *tensors])

    def own(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors of a run, as ones that later runs do not overwrite."""
        return [x.clone() for x in tensors] if self._replays else list(tensors)

    @property
    def remark(self) -> str:
        """Whether the calls were replayed as CUDA graphs, or why not; "" on a CPU."""
        if self._refusals:
            return f", without a CUDA graph ({self._refusals[0]})"
        return ", as a CUDA graph" if self._replays else ""

    def _is_replayed(self, tensors: Sequence[Tensor]) -> bool:
        return not self._refusals and common_gpu([*tensors, *self.body.constants]) is not None

    def _record(
        self,
        shared: list[Tensor],
        moving: list[Tensor],
        places: tuple[tuple[int, ...] | int, ...],
        keep: tuple[int, ...],
    ) -> Replay:
        count = self.num_carried

        def calls(shared: list[Tensor], moving: list[Tensor]) -> Passed:
            tensors = moving[count:]
            columns = [tensors[p] if isinstance(p, int) else [tensors[k] for k in p] for p in places]
            return self._repeat(shared, moving[:count], _rows(columns), keep)

        return Replay(calls, shared, moving, self.body.constants)

    def _repeat(
        self, shared: list[Tensor], carried: list[Tensor], rows: list[tuple[Tensor, ...]], keep: tuple[int, ...]
    ) -> Passed:
        run, count, kept, extras = self.body.run, self.num_carried, [], []
        for row in reversed(rows) if self.backwards else rows:
            kept.append([carried[k] for k in keep])
            found = run(*shared, *carried, *row)
            carried = list(found[:count])
            extras.append(found[count:])
        if self.backwards:
            kept, extras = kept[::-1], extras[::-1]
        return Passed(carried, _stacked(kept), _stacked(extras))


def _rows(columns: Sequence[Column]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(x.unbind() if isinstance(x, Tensor) else x for x in columns), strict=True))


def _stacked(rows: list[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _distinct(columns: Sequence[Column]) -> tuple[list[Tensor], tuple[tuple[int, ...] | int, ...]]:
    """The tensors of some columns, each once, and where those of each column are among them."""
    tensors: list[Tensor] = []
    seen: dict[int, int] = {}

    def place(x: Tensor) -> int:
        if id(x) not in seen:
            seen[id(x)] = len(tensors)
            tensors.append(x)
        return seen[id(x)]

    return tensors, tuple(place(x) if isinstance(x, Tensor) else tuple(place(y) for y in x) for x in columns)
