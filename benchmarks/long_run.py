"""Whether memory, descriptors, threads, files and the time of a step grow over many outer steps.

python -m benchmarks.long_run [--steps N] [--entries N] [--entry-steps N] [--traced]
"""

import argparse
import gc
import os
import tempfile
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from hypergrad.callback.base import Record, Result, Run

_SAMPLES = 40
QUANTITIES = ("RSS, bytes", "Python, bytes", "descriptors", "threads", "folder, bytes", "time, ms")
_console = Console(width=110, highlight=False)


class Meter(hg.Callback):
    """Samples what a process holds, `_SAMPLES` times in a run.

    Args:
        folder: of the run, whose files are counted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []

    def on_start(self, run: Run) -> None:
        self._every, self._start = max(1, run.outer_steps // _SAMPLES), time.perf_counter()

    def on_step(self, record: Record) -> None:
        if record.step % self._every == 0:
            self.rows.append((record.step, *held(self.folder), 1e3 * (time.perf_counter() - self._start)))


def held(folder: Path) -> tuple[int, int, int, int, int]:
    """What this process holds, and the bytes in a folder; the bytes of Python are 0 if they are not traced."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    traced = tracemalloc.get_traced_memory()[0]
    descriptors = len(os.listdir("/proc/self/fd"))
    files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return pages * os.sysconf("SC_PAGESIZE"), traced, descriptors, threading.active_count(), files


def ridge(size: int = 5, examples: int = 40, per: str | None = None) -> hg.InnerProblem:
    """A linear model with one penalty, or one for each weight."""
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(2 * examples, size, generator=generator), torch.randn(2 * examples, 1, generator=generator)
    return hg.Supervised(
        model=torch.nn.Linear(size, 1, bias=False),
        loss=torch.nn.functional.mse_loss,
        train=(X[:examples], y[:examples]),
        dev=(X[examples:], y[examples:]),
        hyperparameters={"l2": hg.L2(init=0.1, per=per) if per else hg.L2(init=0.1)},
    )


ESTIMATORS: dict[str, hg.HypergradEstimator] = {
    "unrolled": hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=2),
    "single loop": hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=0.05))),
}


def sampled(name: str, steps: int, record_every: int = 1) -> np.ndarray:
    """Samples over a run with all files: a row each of the step and the six quantities."""
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(Path(folder))
        files = [hg.JSONLines(folder), hg.TensorBoard(folder), hg.StateSaver(folder, every=100), meter]
        hg.Trainer(
            problem=ridge(),
            estimator=ESTIMATORS[name],
            optimizer=partial(torch.optim.SGD, lr=1e-3),
            outer_steps=steps,
            patience=steps,
            record_every=record_every,
            callbacks=files,
        ).fit()
        return np.array(meter.rows, dtype=float)


def quarters(rows: np.ndarray) -> np.ndarray:
    """The mean increase per step in each quarter of a run, shape (4, 6)."""
    ends = rows[np.linspace(0, len(rows) - 1, 5).astype(int)]
    return np.diff(ends[:, 1:], axis=0) / np.diff(ends[:, :1], axis=0)


def show(title: str, rows: np.ndarray) -> None:
    """Print the increases of all quantities."""
    table = Table("increase per step", *(f"quarter {i}" for i in range(1, 5)), title=title, title_justify="left")
    for quantity, increases in zip(QUANTITIES, quarters(rows).T, strict=True):
        table.add_row(quantity, *(f"{x:.4g}" for x in increases))
    _console.print(table)


class Timed(hg.Callback):
    """The time that another callback takes at each record.

    Args:
        inner: that callback.
    """

    def __init__(self, inner: hg.Callback) -> None:
        self.inner, self.spent = inner, []

    def on_start(self, run: Run) -> None:
        self.inner.on_start(run)

    def on_step(self, record: Record) -> None:
        start = time.perf_counter()
        self.inner.on_step(record)
        self.spent.append(time.perf_counter() - start)

    def on_end(self, result: Result) -> None:
        self.inner.on_end(result)


def of_many_entries(entries: int, steps: int) -> dict[str, tuple[float, float]]:
    """Bytes and milliseconds that each kind of file takes for a record, if λ has this many entries."""
    found: dict[str, tuple[float, float]] = {}
    problem = ridge(entries, examples=2, per="weight")
    optimizer = partial(torch.optim.SGD, lr=1e-3)
    for name, make in {"JSON lines": hg.JSONLines, "TensorBoard": hg.TensorBoard}.items():
        with tempfile.TemporaryDirectory() as folder:
            timed = Timed(make(folder))
            hg.Trainer(
                problem=problem,
                estimator=hg.Unrolled(solver=hg.GradientDescent(lr=1e-7), inner_steps=2),
                optimizer=optimizer,
                outer_steps=steps,
                callbacks=[timed],
            ).fit()
            files = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            found[name] = files / len(timed.spent), 1e3 * float(np.median(timed.spent))
    return found


def main() -> None:
    """Run all settings, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--entry-steps", type=int, default=5)
    parser.add_argument("--traced", action="store_true", help="trace Python's memory, which makes steps slower")
    chosen = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    for name, (size, spent) in of_many_entries(chosen.entries, chosen.entry_steps).items():
        _console.print(f"{name}, {chosen.entries:,} entries of λ: {size:,.0f} bytes and {spent:.3g} ms per record")
    if chosen.traced:
        tracemalloc.start()
    for name in ESTIMATORS:
        for record_every in (1, 100):
            rows = sampled(name, chosen.steps, record_every)
            show(f"{name}, {chosen.steps:,} steps, record_every={record_every}", rows)


if __name__ == "__main__":
    main()
