"""The table of README.md, and the curves of its figure.

python -m experiments.digits.table [--seeds 3] [--without TPE] [--out experiments/digits/results.json]
"""

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.digits.by_hand import Point
from experiments.digits.contestants import OTHER_DEV, PER, contestants

HERE = Path(__file__).parent
Curves = dict[str, list[list[Point]]]
"""By contestant, the curve of each seed."""
_NEAR = 1.001
"""A dev loss is reached within a thousandth."""


def measured(penalties: int, seeds: int, without: list[str]) -> Curves:
    """The curves of all contestants except some, one after the other; every second seed reverses the order."""
    curves: Curves = {name: [] for name in contestants(0, penalties) if name not in without}
    for seed in range(seeds):
        runs = contestants(seed, penalties)
        for name in list(curves)[:: 1 if seed % 2 == 0 else -1]:
            curves[name].append(runs[name]())
    return curves


def reached(curve: list[Point], dev: float) -> float | None:
    """The seconds after which a curve is at a dev loss; None where it never is."""
    return next((point.seconds for point in curve if point.dev <= _NEAR * dev), None)


def shown(values: list[float], digits: int = 4) -> str:
    """Mean and standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


def tabulated(penalties: int, curves: Curves) -> Table:
    """One row per contestant; the last column is the time until the reference's dev loss over the reference's time."""
    reference, *_ = curves.values()
    title = f"{penalties} penalties"
    table = Table(
        "", "dev", "test", "lowest test", "s", "s to reference", "× reference", title=title, title_justify="left"
    )
    for name, runs in curves.items():
        times = [reached(run, other[-1].dev) for run, other in zip(runs, reference, strict=True)]
        times = [None] * len(runs) if name in OTHER_DEV else times
        there = [x for x in times if x is not None]
        ratios = [x / other[-1].seconds for x, other in zip(times, reference, strict=True) if x is not None]
        reaching = "" if len(there) == len(runs) else f" ({len(there)} of {len(runs)})"
        table.add_row(
            name,
            shown([run[-1].dev for run in runs]),
            shown([run[-1].test for run in runs]),
            shown([min(point.test for point in run) for run in runs]),
            shown([run[-1].seconds for run in runs], 2),
            f"{statistics.mean(there):.2f}{reaching}" if there else "" if name in OTHER_DEV else "never",
            f"{statistics.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
        )
    return table


def main() -> None:
    """Measure, print the tables, and keep the curves."""
    parser = argparse.ArgumentParser(prog="python -m experiments.digits.table")
    parser.add_argument("--seeds", type=int, default=3, help="splits, from seed 0")
    parser.add_argument("--penalties", type=int, nargs="+", default=list(PER), choices=list(PER))
    parser.add_argument("--without", nargs="+", default=[], help="contestants to leave out, such as TPE")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    chosen = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", hg.NotConvergedWarning)
    for run in contestants(0, 1).values():  # imports, and what is compiled or traced for the first time
        run()
    console, results, begin = Console(width=140), {}, time.perf_counter()
    for penalties in chosen.penalties:
        curves = measured(penalties, chosen.seeds, chosen.without)
        console.print(tabulated(penalties, curves))
        results[str(penalties)] = {
            name: [[[round(x, 6) for x in point] for point in run] for run in runs] for name, runs in curves.items()
        }
    chosen.out.write_text(json.dumps(results) + "\n")
    console.print(f"{time.perf_counter() - begin:.0f} s, one thread, {chosen.out}", highlight=False)


if __name__ == "__main__":
    main()
