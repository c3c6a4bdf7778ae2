"""The table of README.md: the step size that descent finds, against a fine line search.

python -m experiments.learning_rate.table
"""

import warnings
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize_scalar

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Result
from hypergrad.training.training import Training

SEEDS, STEPS, START, L2 = range(5), (1, 3, 10, 30, 100), 0.05, 0.1
SOLVER = hg.GradientDescent(lr="rate")
SGD = partial(torch.optim.SGD, lr=0.01)


def problem_of(seed: int, **settings: Any) -> hg.LearningToLearn:
    """The problem of `experiment=learning_rate` on a split."""
    ridge = hg.Ridge(hg.diabetes(seed=seed), l2=L2)
    return hg.LearningToLearn(ridge, {"rate": hg.Hyperparameter(START, **settings)})


def losses(problem: hg.LearningToLearn, rate: float, num_steps: int) -> tuple[float, float, float]:
    """Train, dev and test loss after so many steps of this size."""
    hparams = {"rate": torch.tensor(rate)}
    w = Training(solver=SOLVER, steps=num_steps).run(problem, hparams, problem.init_params()).params
    dev = problem.problem.outer_loss(w, {}, None).item()
    return problem.outer_loss(w, hparams, None).item(), dev, float(problem.metrics(w, hparams)["test_loss"])


def line_search(problem: hg.LearningToLearn, num_steps: int, largest: float, count: int = 400) -> float:
    """The best of `count` step sizes up to the largest, refined."""
    grid = torch.linspace(largest / count, largest, count).tolist()
    best = min(grid, key=lambda rate: losses(problem, rate, num_steps)[0])
    bounds = (max(best - largest / count, 1e-9), min(best + largest / count, largest))
    found: Any = minimize_scalar(
        lambda rate: losses(problem, rate, num_steps)[0], bounds=bounds, method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x)


def stable(problem: hg.LearningToLearn) -> float:
    """2/L, beyond which training diverges."""
    X = problem.problem.get_buffer("X")
    return 1 / (torch.linalg.matrix_norm(X, 2).item() ** 2 / len(X) + L2)


def by_sgd(seed: int, num_steps: int, outer_steps: int) -> Result:
    """ρ ← ρ − 0.01 dF/dρ, as the command does."""
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=num_steps)
    return hg.fit(problem_of(seed), estimator, SGD, outer_steps, warm_start=False, progress=False)


def bounded(seed: int) -> hg.LearningToLearn:
    """The same with ρ in (0, 2/L), so that no step of a search diverges."""
    return problem_of(seed, constraint=hg.interval(0.0, stable(problem_of(seed))))


def by_lbfgs(seed: int, num_steps: int) -> Result:
    """Twenty steps of scipy's L-BFGS-B."""
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=num_steps)
    return hg.fit(bounded(seed), estimator, hg.LBFGSB, 20, warm_start=False, progress=False)


def main() -> None:
    """Print the tables and keep what the figure shows."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    console, rows = Console(width=160), []
    table = Table(
        *(
            "seed",
            "2/L",
            "line search",
            "descent by 0.01",
            "off by",
            "L-BFGS",
            "off by",
            "TPE, 100 trainings",
            "off by",
        ),
        *("train: start", "tuned", "dev: start", "tuned", "test: start", "tuned"),
    )
    for seed in SEEDS:
        problem = problem_of(seed)
        bound = stable(problem)
        best = line_search(problem, 10, 0.999 * bound)
        unrolled = hg.Unrolled(solver=SOLVER, inner_steps=10)
        tpe = search(bounded(seed), unrolled, TPE(width=4.0, seed=seed), Budget(trials=100)).best
        rates = [
            record.hparams["rate"].item() for record in (by_sgd(seed, 10, 2500).last, by_lbfgs(seed, 10).best, tpe)
        ]
        before, after = losses(problem, START, 10), losses(problem, rates[0], 10)
        rows.append([seed, bound, best, *rates, *before, *after])
        cells = [text for rate in rates for text in (f"{rate:.5f}", f"{abs(rate / best - 1):.1e}")]
        numbers = [f"{x:.4f}" for pair in zip(before, after, strict=True) for x in pair]
        table.add_row(str(seed), f"{bound:.4f}", f"{best:.5f}", *cells, *numbers)
    console.print(table)
    problem, curves = problem_of(0), {}
    bound = stable(problem)
    for num_steps in STEPS:
        grid = torch.linspace(0.002, 0.999 * bound, 200).tolist()
        best = line_search(problem, num_steps, 0.999 * bound)
        paths = {"descent by 0.01": by_sgd(0, num_steps, 100).history, "L-BFGS-B": by_lbfgs(0, num_steps).history}
        curves[num_steps] = {
            "rates": grid,
            "losses": [losses(problem, rate, num_steps)[0] for rate in grid],
            "best": best,
            "paths": {name: [[row["hparam/rate"], row["loss/dev"]] for row in path] for name, path in paths.items()},
        }
        ends = [f"{name} {path[-1]['hparam/rate']:.5f}" for name, path in paths.items()]
        console.print(f"T = {num_steps}: line search {best:.5f}, after 100 steps {ends[0]}, after 20 {ends[1]}")
    save("learning_rate", {"rows": rows, "curves": curves})


if __name__ == "__main__":
    main()
