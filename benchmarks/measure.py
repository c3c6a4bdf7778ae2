"""Interleaved timing, peak memory in a process of its own, and the table that shows both."""

import argparse
import multiprocessing
import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.peers.memory import peak_megabytes

THREADS = 2
Work = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Row:
    """One contestant.

    Attributes:
        seconds: median time of one call.
        ratio: median over the rounds of its time / the reference's time in the same round, so that a slow moment of
            the machine, which lasts longer than a round, cancels.
        spread: third − first quartile of that ratio.
        error: relative error of its result against the reference result.
        megabytes: peak memory above what the process held before.
    """

    seconds: float
    ratio: float
    spread: float
    error: float
    megabytes: float


def interleaved(contestants: dict[str, Callable[[], float]], *, repeats: int) -> dict[str, list[float]]:
    """Seconds of `repeats` calls of each, which time themselves, alternately: a slow moment affects all equally.

    Every second round is in reversed order: the order changes the time of a small problem by 10 %.
    """
    for clocked in contestants.values():
        clocked()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats):
        for name in list(contestants)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(contestants[name]())
    return times


def timing_settings(parser: argparse.ArgumentParser, rounds: int) -> argparse.Namespace:
    """The arguments of a benchmark with `--rounds` and `--threads`, after the threads are limited.

    Args:
        parser: with the benchmark's own arguments.
        rounds: the default.
    """
    parser.add_argument("--rounds", type=int, default=rounds, help="timed turns, at least 7")
    parser.add_argument("--threads", type=int, default=THREADS, help="1 on a busy machine")
    given = parser.parse_args()
    if given.rounds < 7:
        parser.error(f"--rounds must be at least 7, but it is {given.rounds}.")
    limit_threads(given.threads)
    return given


def limit_threads(count: int) -> None:
    """Give this process, and those that it starts, `count` threads, and as many processors."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])  # what JAX goes by
    os.environ["OMP_NUM_THREADS"] = str(count)  # what a child's torch goes by
    torch.set_num_threads(count)


def clocked(
    work: Callable[[], object], calls: int = 1, clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """Seconds of one call, the mean of several in a row; `time.process_time` leaves out what other processes take."""

    def seconds() -> float:
        begin = clock()
        for _ in range(calls):
            work()
        return (clock() - begin) / calls

    return seconds


def ratios(times: list[float], reference: list[float]) -> tuple[float, float]:
    """Median and third − first quartile of the ratio within a round, in which a slow moment of the machine cancels."""
    low, middle, high = statistics.quantiles([t / r for t, r in zip(times, reference, strict=True)], n=4)
    return middle, high - low


class Entrant(ABC):
    """Whoever makes the result of a table."""

    @abstractmethod
    def run(self) -> tuple[torch.Tensor, float]:
        """The result, and the seconds that it took."""

    @abstractmethod
    def megabytes(self) -> float:
        """Peak memory of one call after another one, above what the process held in between."""


@dataclass(frozen=True)
class Local(Entrant):
    """One in this process, and for its memory in another one.

    Attributes:
        make: builds the work of a name; picklable.
        name: which.
        work: what it built.
    """

    make: Callable[[str], Work]
    name: str
    work: Work

    @classmethod
    def of(cls, make: Callable[[str], Work], name: str) -> "Local":
        """The entrant of a name, ready to be called."""
        return cls(make, name, make(name))

    def run(self) -> tuple[torch.Tensor, float]:
        begin = time.perf_counter()
        result = self.work()
        return result, time.perf_counter() - begin

    def megabytes(self) -> float:
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_peak, (self.make, self.name, threads, dtype))


def _peak(make: Callable[[str], Work], name: str, threads: int, dtype: torch.dtype) -> float:
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    work = make(name)
    work()  # what is imported, compiled and allocated once does not count
    return peak_megabytes(work)[1]


def compare(
    title: str,
    entrants: Mapping[str, Entrant],
    *,
    reference: str,
    truth: str,
    unchecked: tuple[str, ...] = (),
    tolerance: float = 1e-8,
    repeats: int = 7,
) -> dict[str, Row]:
    """Time all entrants alternately, check their results against each other, and print the table.

    Args:
        title: of the table.
        entrants: by name.
        reference: the entrant whose time is 1.
        truth: the entrant whose result the others must have.
        unchecked: entrants that compute something else, such as plain training.
        tolerance: largest relative error allowed.
        repeats: timed calls of each, ≥ 7.

    Returns:
        The rows by name.

    Raises:
        RuntimeError: if a result differs by more than the tolerance.
    """
    results: dict[str, torch.Tensor] = {}

    def seconds(name: str) -> float:
        results[name], spent = entrants[name].run()
        return spent

    times = interleaved({name: partial(seconds, name) for name in entrants}, repeats=max(7, repeats))
    rows: dict[str, Row] = {}
    for name, entrant in entrants.items():
        error = float("nan") if name in unchecked else _error(results[name], results[truth])
        if error > tolerance:
            raise RuntimeError(f"{title}: {name} is off by {error:.1e}, which is more than {tolerance:.0e}.")
        ratio, spread = ratios(times[name], times[reference])
        rows[name] = Row(statistics.median(times[name]), ratio, spread, error, entrant.megabytes())
    _print(title, rows, reference)
    return rows


def _error(found: torch.Tensor, right: torch.Tensor) -> float:
    return ((found - right).norm() / right.norm()).item()


def _print(title: str, rows: dict[str, Row], reference: str) -> None:
    table = Table(
        "", "× reference", "quartiles apart", "ms", "peak MB", "relative error", title=title, title_justify="left"
    )
    for name, row in rows.items():
        error = "" if row.error != row.error else f"{row.error:.0e}"
        table.add_row(
            f"{name} (reference)" if name == reference else name,
            f"{row.ratio:.2f}",
            f"{row.spread:.2f}",
            f"{1e3 * row.seconds:.1f}",
            f"{row.megabytes:.0f}",
            error,
        )
    Console(width=110).print(table)
