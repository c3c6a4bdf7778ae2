"""The table of README.md: grid, random search, TPE and the gradient over the number of hyperparameters.

python -m experiments.grid_vs_gradient.table
"""

import statistics
import time
import warnings
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.base import Search
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.grid import GridSearch
from hypergrad.baseline.random import RandomSearch
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Result

DIMENSIONS, SEEDS, BUDGET = (*range(1, 13), 64), range(3), 64
"""The budget counts trainings. A hypergradient is counted as two: a training and a system of its size."""

DENSE = hg.Dense()
ESTIMATOR = hg.Implicit(solver=hg.Newton(linsolve=DENSE), linsolve=DENSE, inner_steps=20, error_bar=False)
WIDTH = 7.0


def problem_of(seed: int, groups: int) -> hg.Tied:
    """Ridge regression on 64 features with that many penalties, from 1."""
    ridge = hg.Ridge(hg.diabetes(seed=seed, quadratic=True), l2=1.0, per_feature=True)
    return hg.Tied(ridge, name="l2", groups=groups)


def by_gradient(problem: hg.Tied, budget: int) -> dict:
    """Adam on log λ."""
    adam = partial(torch.optim.Adam, lr=0.5)
    return summary(hg.fit(problem, ESTIMATOR, adam, budget // 2 - 1, progress=False))


def by_search(problem: hg.Tied, method: Search, budget: int) -> dict:
    """A search; the start is its first trial."""
    return summary(search(problem, ESTIMATOR, method, Budget(trials=budget - 1)))


def summary(result: Result) -> dict:
    """Dev and test loss at the lowest dev loss, and what was spent."""
    row = result.best
    return {
        "dev": row.outer_loss,
        "test": row.metrics["test_loss"],
        "evaluations": len(result.history),
        "seconds": result.last.seconds,
    }


def searched(seed: int, groups: int, budget: int = BUDGET) -> dict[str, dict]:
    """The result of each method."""
    problem = problem_of(seed, groups)
    methods: dict[str, Search] = {"random": RandomSearch(width=WIDTH, seed=seed), "TPE": TPE(width=WIDTH, seed=seed)}
    if 2**groups < budget:
        methods["grid"] = GridSearch(width=WIDTH)
    found = {"gradient": by_gradient(problem, budget)}
    found |= {name: by_search(problem, method, budget) for name, method in methods.items()}
    start = hg.fit(problem, ESTIMATOR, partial(torch.optim.SGD, lr=0.1), 0, progress=False).first
    found["start"] = {"dev": start.outer_loss, "test": start.metrics["test_loss"]}
    return found


def main() -> None:
    """Print the tables and keep what the figure shows."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    begin, found = time.perf_counter(), {}
    for groups in DIMENSIONS:
        found[groups] = [searched(seed, groups) for seed in SEEDS]
        print(f"{groups}: {time.perf_counter() - begin:.0f} s", flush=True)
    methods = ("start", "grid", "random", "TPE", "gradient")
    console = Console(width=150)
    for part in ("dev", "test"):
        title = f"{part} loss, mean over {len(SEEDS)} splits; in brackets, on how many the gradient is lower"
        table = Table("hyperparameters", *methods, "cells per axis", title=title, title_justify="left")
        for groups, splits in found.items():
            cells = [f"{groups}"]
            for method in methods:
                values = [split[method][part] for split in splits if method in split]
                wins = sum(split["gradient"][part] < split[method][part] for split in splits if method in split)
                mark = "" if method == "gradient" else f" ({wins})"
                cells.append(f"{statistics.mean(values):.4f}{mark}" if len(values) == len(splits) else "–")
            table.add_row(*cells, str(int((BUDGET - 0.5) ** (1 / groups))))
        console.print(table)
    each = [
        split["random"]["seconds"] / split["random"]["evaluations"] for splits in found.values() for split in splits
    ]
    seconds = statistics.median(each)
    hours = [f"d = {d}: {10**d * seconds / 3600:.2g} h" for d in (2, 4, 6, 8, 10, 12)]
    console.print(f"a training takes {1e3 * seconds:.1f} ms; 10^d of them: {', '.join(hours)}")
    gradient = statistics.median(
        split["gradient"]["seconds"] / split["gradient"]["evaluations"] for splits in found.values() for split in splits
    )
    console.print(f"a hypergradient takes {gradient / seconds:.1f} times as long as a training")
    save("grid_vs_gradient", {"found": found, "seconds": seconds})


if __name__ == "__main__":
    main()
