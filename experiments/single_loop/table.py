"""The table of README.md: value gap and ‖∇F‖² against oracles and seconds, at the step sizes that tune.py found.

python -m experiments.single_loop.table [quadratic|logistic] [NAME…]
"""

import bisect
import sys
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from experiments.numbers import load
from experiments.single_loop.contestants import ENTRANTS
from experiments.single_loop.tune import SETTINGS, Setting, keep


def measured(name: str, setting: Setting, found: dict[str, Any]) -> dict[str, list[float]]:
    """The path of an entrant at its tuned step sizes."""
    best = found[name]
    path = ENTRANTS[name].run(setting.problem, best["step"], best["ratio"], setting.epochs)
    return path.judged(setting.problem(None), found["least"])


def at(columns: dict[str, list[float]], key: str, epoch: float) -> float:
    """A column at the last record that cost no more than `epoch`."""
    return columns[key][max(0, bisect.bisect_right(columns["epochs"], epoch * (1 + 1e-9)) - 1)]


def show(kind: str, numbers: dict[str, dict[str, list[float]]], tuned: dict[str, Any]) -> None:
    """Print the gap after each number of epochs, ‖∇F‖² at the end, and the CPU seconds of the run."""
    setting = SETTINGS[kind]
    columns = (*(f"gap after {epoch:g}" for epoch in setting.shown), "‖∇F‖² then", "CPU s", "step", "ratio")
    table = Table("", *columns, title=f"{kind}, epochs of 3n + m oracles", title_justify="left")
    for name, path in numbers.items():
        gaps = [f"{at(path, 'gap', epoch):.1e}" for epoch in setting.shown]
        best = tuned[name]
        steps = f"{best['step']:g}", f"{best['ratio']:g}"
        table.add_row(name, *gaps, f"{path['grad'][-1]:.1e}", f"{path['seconds'][-1]:.1f}", *steps)
    Console(width=170).print(table)


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    chosen, *names = sys.argv[1:] or [""]
    tuned = load("single_loop", "tuned")
    for kind, setting in SETTINGS.items():
        for name in ENTRANTS if chosen in ("", kind) else ():
            if name in tuned[kind] and (not names or name in names):
                keep("numbers", kind, {name: measured(name, setting, tuned[kind])})
        found = load("single_loop").get(kind, {})
        show(kind, {name: found[name] for name in ENTRANTS if name in found}, tuned.get(kind, {}))


if __name__ == "__main__":
    main()
