"""The tables of README.md: ten outer steps, with and without five points first, against a grid of 100 penalties.

python -m experiments.lasso.table
"""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from hypergrad.training.training import Training

SOLVER = hg.CoordinateDescent()
ESTIMATOR = hg.Implicit(
    solver=SOLVER, linsolve=hg.CG(tol=1e-8, max_iter=500), inner_steps=2000, inner_tol=1e-8, error_bar=False
)
LBFGS = partial(
    torch.optim.LBFGS, max_iter=1, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-12
)
ADAM = partial(torch.optim.Adam, betas=(0.5, 0.999))
FALLING = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.8)
SEARCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "5 points, Adam": (5, {"optimizer": partial(ADAM, lr=0.3), "scheduler": FALLING}),
    "5 points, L-BFGS-B": (5, {"optimizer": hg.LBFGSB}),
    "L-BFGS": (0, {"optimizer": LBFGS}),
    "Adam": (0, {"optimizer": partial(ADAM, lr=0.5)}),
}
"""How many penalties are tried first, of which the best is the start, and what then moves log l1."""
OUTER_STEPS, GRID = 10, 100
DATA: dict[str, tuple[Callable[..., hg.Splits], range, float, float]] = {
    "diabetes": (hg.diabetes, range(10), 1e-3, 0.1),
    "n = 500, p = 5000": (hg.sparse_regression, range(5), 1e-2, 0.1),
}
"""The data of a seed, the seeds, the end of the grid and the start of the search relative to l1_max."""


class Counted(hg.Lasso):
    """Counts its hypergradients, a line search's too."""

    count = 0

    def restriction(self, params: hg.Tensors, hparams: hg.Tensors) -> Any:
        self.count += 1
        return super().restriction(params, hparams)


class Found(NamedTuple):
    """The lowest dev loss of a search, the test loss there, and log10(l1 / l1_max)."""

    dev: float
    test: float
    at: float


def grid(problem: hg.Lasso, ratios: torch.Tensor) -> Found:
    """The best of some l1 / l1_max, which fall: each fit starts from the one before."""
    params, best = problem.init_params(), Found(float("inf"), 0.0, 0.0)
    for ratio in ratios:
        hparams = {"l1": ratio * problem.l1_max}
        params = Training(solver=SOLVER, steps=2000, tol=1e-6).run(problem, hparams, params).params
        dev, test = problem.outer_loss(params, hparams, None), problem.metrics(params, hparams)["test_loss"]
        best = min(best, Found(float(dev), float(test), ratio.log10().item()))
    return best


def search(name: str, data: hg.Splits, end: float, start: float) -> tuple[Found, int]:
    """The best of a search on log l1, and how many fits it took."""
    points, settings = SEARCHES[name]
    largest = hg.Lasso(data).l1_max
    if points:
        first = grid(hg.Lasso(data), torch.logspace(0, math.log10(end), points + 1)[1:])
        start = 10**first.at
    problem = Counted(data, l1=start * largest)
    best = hg.Trainer(problem=problem, estimator=ESTIMATOR, outer_steps=OUTER_STEPS, **settings).fit().best
    where = torch.log10(best.hparams["l1"] / largest).item()
    return Found(best.outer_loss, best.metrics["test_loss"], where), points + problem.count


def main() -> None:
    """Print the tables."""
    torch.set_default_dtype(torch.float64)
    console = Console(width=200)
    for title, (make, seeds, end, start) in DATA.items():
        table = Table("seed", "grid: dev", "at", "test", "s", title=title, title_justify="left")
        for name in SEARCHES:
            for column in (f"{name}: dev − grid", "at", "test", "fits / s"):
                table.add_column(column)
        differences: dict[str, list[float]] = {name: [] for name in SEARCHES}
        for seed in seeds:
            data = make(seed=seed)
            begin = time.process_time()
            best = grid(hg.Lasso(data), torch.logspace(0, math.log10(end), GRID))
            row = [str(seed), f"{best.dev:.4f}", f"{best.at:.2f}", f"{best.test:.4f}"]
            row.append(f"{time.process_time() - begin:.1f}")
            for name in SEARCHES:
                begin = time.process_time()
                found, fits = search(name, data, end, start)
                differences[name].append(100 * (found.dev / best.dev - 1))
                row += [f"{differences[name][-1]:+.3f} %", f"{found.at:.2f}", f"{found.test:.4f}"]
                row.append(f"{fits} / {time.process_time() - begin:.1f}")
            table.add_row(*row)
        console.print(table)
        for name, each in differences.items():
            within = sum(difference <= 0.1 for difference in each)
            below = sum(difference <= 1e-3 for difference in each)
            console.print(
                f"{name}: within 0.1 % on {within} of {len(each)}, within 0.001 % or below on {below}, "
                f"median {statistics.median(each):+.3f} %"
            )


if __name__ == "__main__":
    main()
