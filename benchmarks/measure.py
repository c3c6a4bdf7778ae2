"""Interleaved timing, peak memory in a process of its own, and the table that shows both."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

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
    """Seconds of `repeats` calls of each, which time themselves, in turns, so that a slow moment hits all alike.

    Every other round runs backwards: who comes after whom is worth 10 % on a small problem.
    """
    for clocked in contestants.values():
        clocked()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats):
        for name in list(contestants)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(contestants[name]())
    return times


def limit_threads(count: int) -> None:
    """Give this process, and those that it starts, `count` threads, and as many processors."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])  # what JAX goes by
    os.environ["OMP_NUM_THREADS"] = str(count)  # what a child's torch goes by
    torch.set_num_threads(count)


def clocked(work: Callable[[], object], calls: int = 1) -> Callable[[], float]:
    """Seconds of one call, the mean of several in a row."""

    def seconds() -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - begin) / calls

    return seconds


def ratios(times: list[float], reference: list[float]) -> tuple[float, float]:
    """Median and third − first quartile of the ratio within a round, in which a slow moment of the machine cancels."""
    low, middle, high = statistics.quantiles([t / r for t, r in zip(times, reference, strict=True)], n=4)
    return middle, high - low


def peak_megabytes(make: Callable[[str], Work], name: str) -> float:
    """Peak resident memory of one call, above what the process held before, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (make, name))


def _peak(make: Callable[[str], Work], name: str) -> float:
    torch.set_num_threads(THREADS)
    torch.set_default_dtype(torch.float64)
    work = make(name)
    x = torch.ones(1, requires_grad=True)
    torch.autograd.grad(2 * x, x, torch.ones(1))  # what torch imports and allocates once does not count
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    work()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}: peak memory needs Linux.")


def compare(
    title: str,
    make: Callable[[str], Work],
    names: list[str],
    *,
    reference: str,
    truth: str,
    unchecked: tuple[str, ...] = (),
    tolerance: float = 1e-8,
    repeats: int = 7,
) -> dict[str, Row]:
    """Time all contestants in turns, check their results against each other, and print the table.

    Args:
        title: of the table.
        make: builds the contestant of a name, ready to be called; picklable, for the memory runs.
        names: the contestants.
        reference: the contestant whose time is 1.
        truth: the contestant whose result the others must have.
        unchecked: contestants that compute something else, such as plain training.
        tolerance: largest relative error allowed.
        repeats: timed calls of each, ≥ 7.

    Returns:
        The rows by name.

    Raises:
        RuntimeError: if a result differs by more than the tolerance.
    """
    contestants = {name: make(name) for name in names}
    right = contestants[truth]()
    times = interleaved({name: clocked(work) for name, work in contestants.items()}, repeats=max(7, repeats))
    rows: dict[str, Row] = {}
    for name, work in contestants.items():
        error = float("nan") if name in unchecked else ((work() - right).norm() / right.norm()).item()
        if error > tolerance:
            raise RuntimeError(f"{title}: {name} is off by {error:.1e}, which is more than {tolerance:.0e}.")
        ratio, spread = ratios(times[name], times[reference])
        rows[name] = Row(statistics.median(times[name]), ratio, spread, error, peak_megabytes(make, name))
    _print(title, rows, reference)
    return rows


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
