"""The table of README.md: each estimator against brute force on the closed form, over ten splits.

python -m experiments.ridge.table
"""

import statistics
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize_scalar

import hypergrad as hg

SEEDS = range(10)
SOLVER = hg.GradientDescent(lr=0.1)
ESTIMATORS = {
    "unrolled": hg.Unrolled(solver=SOLVER, inner_steps=500),
    "ift_cg": hg.Implicit(solver=SOLVER, linsolve=hg.CG(tol=1e-8), inner_steps=2000, inner_tol=1e-8),
    "ift_neumann": hg.Implicit(solver=SOLVER, linsolve=hg.Neumann(num_terms=1000), inner_steps=2000, inner_tol=1e-8),
    "ift_dense": hg.Implicit(solver=SOLVER, linsolve=hg.Dense(), inner_steps=2000, inner_tol=1e-8),
}
LBFGS = partial(
    torch.optim.LBFGS, max_iter=1, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-12
)


def losses(problem: hg.Ridge, log_l2: float) -> tuple[float, float]:
    """Dev and test loss of the closed-form solution."""
    hparams = {"l2": torch.tensor(log_l2).exp()}
    w = problem.solution(hparams)
    return problem.outer_loss(w, hparams, None).item(), float(problem.metrics(w, hparams)["test_loss"])


def brute_force(problem: hg.Ridge) -> float | None:
    """The log λ of the lowest dev loss between e^-12 and e^6; None where that is at the lower end."""
    grid = torch.linspace(-12, 6, 1801).tolist()
    best = min(grid, key=lambda x: losses(problem, x)[0])
    if best == grid[0]:
        return None
    found: Any = minimize_scalar(
        lambda x: losses(problem, x)[0], bounds=(best - 0.02, best + 0.02), method="bounded", options={"xatol": 1e-9}
    )
    return float(found.x)


def main() -> None:
    """Print the table."""
    torch.set_default_dtype(torch.float64)
    distances = Table("seed", "log λ, brute force", *ESTIMATORS, title="|log λ − brute force|", title_justify="left")
    tuned = Table(
        "seed", "dev: λ = 1", "dev: tuned", "test: λ = 1", "test: tuned", title="losses", title_justify="left"
    )
    gains = []
    for seed in SEEDS:
        problem = hg.Ridge(hg.diabetes(seed=seed))
        truth = brute_force(problem)
        if truth is None:
            distances.add_row(str(seed), "none: λ → 0")
            continue
        found = [
            hg
            .Trainer(problem=problem, estimator=estimator, optimizer=LBFGS, outer_steps=15)
            .fit()
            .last.hparams["l2"]
            .log()
            for estimator in ESTIMATORS.values()
        ]
        before, after = losses(problem, 0.0), losses(problem, found[0].item())
        gains.append(before[1] - after[1])
        distances.add_row(str(seed), f"{truth:.4f}", *(f"{abs(x.item() - truth):.0e}" for x in found))
        tuned.add_row(str(seed), *(f"{x:.4f}" for x in (before[0], after[0], before[1], after[1])))
    console = Console(width=110)
    console.print(distances, tuned)
    mean, spread = statistics.mean(gains), statistics.stdev(gains)
    console.print(f"test loss falls by {mean:.4f} ± {spread:.4f} (mean and deviation over {len(gains)} splits)")


if __name__ == "__main__":
    main()
