"""The tables of README.md: ten outer steps against a grid of 100 penalties, over several splits and data sets.

python -m experiments.lasso.table
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from hypergrad.solver.training import train

SOLVER = hg.CoordinateDescent()
ESTIMATOR = hg.Implicit(
    solver=SOLVER, linsolve=hg.CG(tol=1e-8, max_iter=500), inner_steps=2000, inner_tol=1e-8, error_bar=False
)
OPTIMIZERS: dict[str, Callable[[list[torch.Tensor]], torch.optim.Optimizer]] = {
    "L-BFGS": partial(
        torch.optim.LBFGS, max_iter=1, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-12
    ),
    "Adam": partial(torch.optim.Adam, lr=0.5, betas=(0.5, 0.999)),
}
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


def grid(problem: hg.Lasso, end: float) -> tuple[float, float, float, float]:
    """The lowest dev loss of the grid with its test loss and log10(l1 / l1_max), and the seconds that it took."""
    begin, params = time.perf_counter(), problem.init_params()
    best = (float("inf"), 0.0, 0.0)
    for ratio in torch.logspace(0, torch.tensor(end).log10().item(), GRID):
        hparams = {"l1": ratio * problem.l1_max}
        params = train(problem, SOLVER, hparams, params, max_steps=2000, tol=1e-6).params
        dev, test = (
            problem.outer_loss(params, hparams, None).item(),
            float(problem.metrics(params, hparams)["test_loss"]),
        )
        best = min(best, (dev, test, ratio.log10().item()))
    return (*best, time.perf_counter() - begin)


def main() -> None:
    """Print the tables."""
    torch.set_default_dtype(torch.float64)
    console = Console(width=150)
    for name, (make, seeds, end, start) in DATA.items():
        table = Table("seed", "grid: dev", "at", "test", "s", title=name, title_justify="left")
        for optimizer in OPTIMIZERS:
            for column in (f"{optimizer}: dev − grid", "at", "test", "estimates", "s"):
                table.add_column(column)
        differences: dict[str, list[float]] = {optimizer: [] for optimizer in OPTIMIZERS}
        for seed in seeds:
            data = make(seed=seed)
            problem = Counted(data, l1=start * hg.Lasso(data).l1_max)
            dev, test, where, seconds = grid(problem, end)
            row = [str(seed), f"{dev:.4f}", f"{where:.2f}", f"{test:.4f}", f"{seconds:.1f}"]
            for optimizer, factory in OPTIMIZERS.items():
                problem.count = 0
                trainer = hg.Trainer(problem=problem, estimator=ESTIMATOR, optimizer=factory, outer_steps=OUTER_STEPS)
                last = trainer.fit().last
                differences[optimizer].append(100 * (last.outer_loss / dev - 1))
                ratio = torch.log10(last.hparams["l1"] / problem.l1_max).item()
                row += [f"{differences[optimizer][-1]:+.3f} %", f"{ratio:.2f}"]
                row += [f"{last.metrics['test_loss']:.4f}", str(problem.count), f"{last.seconds:.1f}"]
            table.add_row(*row)
        console.print(table)
        for optimizer, found in differences.items():
            within = sum(difference <= 0.1 for difference in found)
            console.print(
                f"{optimizer}: within 0.1 % on {within} of {len(found)}, median {statistics.median(found):+.3f} %"
            )


if __name__ == "__main__":
    main()
