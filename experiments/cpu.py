"""CPU time, for a machine that others keep busy: of a run, and of a search that stops when it has taken as much."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Callback, Record, Run


@dataclass
class CPUClock(Callback):
    """The CPU seconds of the process from the start of a run to each of its records."""

    seconds: list[float] = field(default_factory=list)
    begin: float = 0.0

    def on_start(self, run: Run) -> None:
        self.begin = time.process_time()

    def on_step(self, record: Record) -> None:
        self.seconds.append(time.process_time() - self.begin)


@dataclass(frozen=True, kw_only=True)
class TPEUntil(TPE):
    """TPE that proposes no further point once the process has taken so much CPU time.

    Attributes:
        deadline: in seconds of `time.process_time()`.
    """

    deadline: float

    def points(self, start: Tensor, num_trials: int | None, losses: list[float]) -> Iterator[Tensor]:
        for point in super().points(start, num_trials, losses):
            if time.process_time() >= self.deadline:
                return
            yield point
