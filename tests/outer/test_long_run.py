"""Long runs hold what the page says: nothing grows but the history, and that by a bounded number of bytes."""

import os
import threading
import tracemalloc

import numpy as np
import pytest
import torch

from benchmarks.long_run import ESTIMATORS, quarters, sampled
from hypergrad.outer.kept import KeptScalars, KeptTensors

_TRACED, _DESCRIPTORS, _THREADS, _FOLDER = range(2, 6)  # columns of `sampled`
pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")


def test_rows_come_back_to_the_bit_as_they_were() -> None:
    rows = [{"step": 0, "a": 0.1, "b": float("inf")}, {"step": 7, "b": -0.0}, {"step": 9, "a": 5e-324, "b": 2.0}]
    kept = KeptScalars(rows[:1])
    kept.append(rows[1])
    kept.append(rows[2])
    assert list(kept) == rows
    assert kept[-1] == rows[-1]
    assert kept[1:] == rows[1:]
    assert [list(row) for row in kept] == [list(row) for row in rows]
    assert [type(row["step"]) for row in kept] == [int] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_path_is_what_stacking_its_tensors_gives(dtype: torch.dtype) -> None:
    rows = [torch.randn(2, 3, dtype=dtype) for _ in range(50)]
    kept = KeptTensors(rows[:20])
    early, view = kept.stacked(20), kept[3]
    for row in rows[20:]:
        kept.append(row)
    assert torch.equal(kept.stacked(50), torch.stack(rows))
    assert torch.equal(early, torch.stack(rows[:20]))
    assert torch.equal(view, rows[3])
    assert len(kept) == 50
    assert torch.equal(kept[-1], rows[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_descriptors_and_threads_stay_and_are_given_back(name: str) -> None:
    sampled(name, 2)  # imports and pools
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    rows = sampled(name, 80)
    assert len(rows) > 20
    assert np.ptp(rows[1:, _DESCRIPTORS]) == np.ptp(rows[1:, _THREADS]) == 0
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.slow
@pytest.mark.parametrize("record_every", [1, 100])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_twenty_thousand_steps_hold_what_the_page_says(name: str, record_every: int) -> None:
    tracemalloc.start()
    try:
        rows = sampled(name, 20_000, record_every)
    finally:
        tracemalloc.stop()
    assert np.ptp(rows[1:, _DESCRIPTORS]) == np.ptp(rows[1:, _THREADS]) == 0
    increases = quarters(rows)[1:] * record_every  # per record; the first quarter imports and fills pools
    # Doubles of at most 24 scalars, and lists that double now and then.
    assert increases[:, _TRACED - 1].mean() < 500
    files = increases[:, _FOLDER - 1]
    assert 0 < files.max() < 1.05 * files.min()
