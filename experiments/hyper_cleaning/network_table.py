"""The rows of the table of the network in README.md, from network.json."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.hyper_cleaning.table import closed
from experiments.single_loop.cleaning_table import spread

MARKS = (10.0, 20.0)
"""CPU seconds at which runs are compared; the last is when they end."""


def between(history: dict[str, list[float]], seconds: float) -> dict[str, float]:
    """The values at that time, on a line between the records before and after it."""
    return {key: float(np.interp(seconds, history["cpu"], values)) for key, values in history.items()}


def show(numbers: dict[str, Any]) -> None:
    """Print means and deviations over the seeds: the references, and the runs after some CPU seconds."""
    first, last = MARKS
    table = Table(
        "row", f"test at {first:g} s", f"at {last:g} s", "on each", "gap closed, %", "dev", "F1", "outer steps"
    )
    seeds = list(numbers.values())
    for name in seeds[0]["references"]:
        tests = [found["references"][name]["test"] for found in seeds]
        table.add_row(name, "", spread(tests, 4), _list(tests, 4))
    for name in seeds[0]["runs"]:
        runs = [found["runs"][name] for found in seeds]
        ends = [between(run, last) for run in runs]
        tests = [end["test"] for end in ends]
        table.add_row(
            name,
            spread([between(run, first)["test"] for run in runs], 4),
            spread(tests, 4),
            _list(tests, 4),
            spread([closed(found, test) for found, test in zip(seeds, tests, strict=True)], 0),
            spread([end["dev"] for end in ends], 3),
            spread([end["f1"] for end in ends], 3),
            _list([end["step"] for end in ends], 0),
        )
    Console(width=170).print(table)


def _list(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
