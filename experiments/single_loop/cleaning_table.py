"""The rows of the hyper-cleaning table of README.md, from cleaning.json."""

import math
import statistics
from bisect import bisect_right
from typing import Any

from rich.console import Console
from rich.table import Table

SECONDS = {"linear": (3, 9), "cnn": (10, 30)}
"""The CPU seconds at which methods are compared, by model."""
GOAL = 0.815


def at(history: dict[str, list[float]], seconds: float) -> dict[str, float]:
    """The last record by then."""
    row = max(bisect_right(history["cpu"], seconds) - 1, 0)
    return {name: values[row] for name, values in history.items()}


def first_above(history: dict[str, list[float]], accuracy: float) -> float:
    """The CPU seconds until the first record with a test accuracy above this one; NaN if there is none."""
    return next((cpu for cpu, test in zip(history["cpu"], history["test"], strict=True) if test > accuracy), math.nan)


def closed(references: dict[str, dict[str, float]], test: float) -> float:
    """The share of the gap between oracle and baseline that a test accuracy closes, in percent."""
    low, high = (references[name]["test"] for name in ("baseline", "oracle"))
    return 100 * (test - low) / (high - low)


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def show(name: str, seeds: dict[str, Any]) -> None:
    """Print means and deviations over the seeds, of the references and of the runs after some CPU seconds."""
    table = Table(name, *(f"test at {s} s" for s in SECONDS[name]), "at the end", "on each", "closed, %", "F1", "CPU s")
    table.add_column(f"s to {GOAL}")
    found = list(seeds.values())
    for each in found[0]["references"]:
        rows = [seed["references"][each] for seed in found]
        shares = [closed(seed["references"], row["test"]) for seed, row in zip(found, rows, strict=True)]
        tests = [row["test"] for row in rows]
        cpu = spread([row["cpu"] for row in rows], 0)
        table.add_row(each, "", "", spread(tests, 4), _list(tests, 4), spread(shares, 0), "", cpu, "")
    for each in found[0]["runs"]:
        runs = [seed["runs"][each] for seed in found]
        ends = [at(run, math.inf) for run in runs]
        shares = [closed(seed["references"], end["test"]) for seed, end in zip(found, ends, strict=True)]
        table.add_row(
            each,
            *(spread([at(run, s)["test"] for run in runs], 4) for s in SECONDS[name]),
            spread([end["test"] for end in ends], 4),
            _list([at(run, SECONDS[name][-1])["test"] for run in runs], 4),
            spread(shares, 0),
            spread([end["f1"] for end in ends], 3),
            spread([end["cpu"] for end in ends], 0),
            _list([first_above(run, GOAL) for run in runs], 1),
        )
    Console(width=170).print(table)


def _list(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
