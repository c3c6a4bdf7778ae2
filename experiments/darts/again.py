"""The second table of README.md: the architectures that were found, trained longer and from other weights.

python -m experiments.darts.again, after experiments.darts.table
"""

import statistics
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.darts.table import ESTIMATORS, KEYS, SEEDS, trained
from experiments.numbers import load, save

WEIGHTS, STEPS = (2000, 3000), 400


def architectures(found: dict[str, Any]) -> dict[str, str]:
    """The operations of the edges of each row."""
    names = {name: found["found"][name]["architecture"]["edges"] for name in ESTIMATORS}
    return names | {
        "best of random search on dev": found["random search"]["edges"],
        "convolutions only": "conv, conv, conv",
    }


def measured(seed: int, found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each row the mean over the weights that training starts from; each architecture is trained once for them."""
    data, known = hg.digits(seed=seed), {}
    rows = architectures(found)
    for edges in sorted(set(rows.values())):
        split = [[name] for name in edges.split(", ")]
        runs = [trained(data, split, None, seed, weights, STEPS) for weights in WEIGHTS]
        known[edges] = {key: statistics.mean(run[key] for run in runs) for key in KEYS}
    return {name: known[edges] for name, edges in rows.items()}


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    numbers = []
    for seed in SEEDS:
        numbers.append(measured(seed, load("darts")["seeds"][seed]))
        save("darts", {"seeds": numbers}, "again")
        print(f"seed {seed}", flush=True)
    table = Table("", *KEYS, title=f"mean and deviation over {len(SEEDS)} seeds")
    for name in numbers[0]:
        columns = [[found[name][key] for found in numbers] for key in KEYS]
        table.add_row(name, *(f"{statistics.mean(x):.3f} ± {statistics.stdev(x):.3f}" for x in columns))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
