"""Time, peak memory and error of some works on a device, as a table of ratios to the first."""

import inspect
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.peers.memory import peak_megabytes

Work = Callable[[], Tensor | None]
T = TypeVar("T")
console = Console(width=110, highlight=False)
_ENOUGH = 2.0
"""Seconds of the first call above which only one more is timed."""


class MissingError(Exception):
    """What a row needs is not there."""


@dataclass(frozen=True)
class Row:
    """One work.

    Attributes:
        make: prepares the work, which returns a flat result, or None if nothing is compared.
        checked: whether the result must be that of the first checked row of the table.
        tolerance: largest relative error; None is that of the table.
    """

    make: Callable[[], Work]
    checked: bool = True
    tolerance: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a row found; `note` says why there is nothing."""

    seconds: float = math.nan
    megabytes: float = math.nan
    error: float = math.nan
    first: float = math.nan
    note: str = ""
    failed: bool = False


def require(kind: Any, *names: str) -> None:
    """Require that a class or function has these arguments.

    Raises:
        MissingError: if it has not.
    """
    known = inspect.signature(kind).parameters
    absent = [name for name in names if name not in known]
    if absent:
        raise MissingError(f"{kind.__name__} has no {', '.join(absent)} in this version")


def measure(title: str, rows: Mapping[str, Row], device: torch.device, *, tolerance: float, rounds: int = 3) -> bool:
    """Measure the rows one after the other, and print the table.

    Returns:
        Whether all rows that could run gave the right result.
    """
    found: dict[str, Measured] = {}
    truth: Tensor | None = None
    try:
        for name, row in rows.items():
            result, found[name] = _tried(row, device, rounds)
            if row.checked and result is not None:
                truth = result if truth is None else truth
                off = ((result - truth).norm() / truth.norm()).item()
                allowed = row.tolerance or tolerance
                wrong = "" if off <= allowed else f"WRONG: more than {allowed:.0e}"
                found[name] = replace(found[name], error=off, note=wrong, failed=bool(wrong))
    finally:  # also where the time is over
        if found:
            _print(title, found)
    return not any(row.failed for row in found.values())


def _tried(row: Row, device: torch.device, rounds: int) -> tuple[Tensor | None, Measured]:
    """What a row gives; where it fails, the other rows are still wanted."""
    try:
        return _one(row.make(), device, rounds)
    except MissingError as error:
        return None, Measured(note=str(error))
    except Exception as error:
        return None, Measured(note=f"{type(error).__name__}: {error}".splitlines()[0][:90], failed=True)
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _one(work: Work, device: torch.device, rounds: int) -> tuple[Tensor | None, Measured]:
    """The result of a work and what it took: first call, then the median of some, and the peak of the last of these."""
    result, first = _timed(work, device)
    result = None if result is None else result.detach().cpu().double()  # here, as it takes as long as ten gradients
    times = [_timed(work, device)[1] for _ in range(rounds - 1 if first < _ENOUGH else 0)]
    (_, last), peak = _with_peak(partial(_timed, work, device), device)
    return result, Measured(statistics.median([*times, last]), peak, first=first)


def _timed(work: Work, device: torch.device) -> tuple[Tensor | None, float]:
    wait(device)
    begin = time.perf_counter()
    result = work()
    wait(device)
    return result, time.perf_counter() - begin


def wait(device: torch.device) -> None:
    """Wait until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _with_peak(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a call returns, and MB above what was held before; of the device, or of the process on a CPU."""
    if device.type != "cuda":
        return peak_megabytes(call)
    torch.cuda.reset_peak_memory_stats(device)
    held = torch.cuda.memory_allocated(device)
    found = call()
    return found, (torch.cuda.max_memory_allocated(device) - held) / 2**20


def _print(title: str, rows: Mapping[str, Measured]) -> None:
    table = Table("", "× first row", "ms", "first call, s", "peak MB", "error", title=title, title_justify="left")
    reference = next(iter(rows.values())).seconds
    for name, row in rows.items():
        numbers = (row.seconds / reference, 1e3 * row.seconds, row.first, row.megabytes, row.error)
        formats = ("{:.2f}", "{:.1f}", "{:.1f}", "{:.0f}", "{:.0e}")
        table.add_row(
            name, *("" if math.isnan(x) else form.format(x) for form, x in zip(formats, numbers, strict=True))
        )
    console.print(table)
    for name, row in rows.items():
        if row.note:
            console.print(f"  {name}: {row.note}")
