"""Peak memory of a call, with the standard library alone."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def peak_megabytes(work: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and its peak resident memory above what the process held before."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed, and this one may use again, counts
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    result = work()
    return result, (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}: peak memory needs Linux.")
