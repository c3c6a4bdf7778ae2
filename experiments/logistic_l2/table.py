"""The tables of README.md: L2 penalties of multinomial logistic regression, one, one per pixel, one per weight.

python -m experiments.logistic_l2.table
"""

import statistics
import time
import warnings
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize_scalar

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.base import Search
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.grid import GridSearch
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Callback, Record
from hypergrad.core.cost import PRODUCT
from hypergrad.estimator.dev_loss import train_and_evaluate
from hypergrad.training.training import Training

SEEDS, START, TOL = range(3), 1e-3, 1e-6
OUTER_STEPS = {"all": 40, "feature": 20, "weight": 20}
SCHEDULES = {"fixed": None, "exponential": "exponential", "quadratic": "quadratic", "cubic": "cubic"}


def problem_of(seed: int, per: str, **parts: float) -> hg.Supervised:
    """The problem of `experiment=logistic_l2` on a split."""
    data = hg.digits(seed=seed, **parts)
    torch.manual_seed(seed)
    return hg.Supervised(
        model=torch.nn.Linear(64, 10, bias=False),
        loss=torch.nn.functional.cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=START, per=per)},
        seed=seed,
    )


def estimator_of(schedule: str | None, tol: float = TOL) -> hg.Implicit:
    """Both tolerances start at 0.1 where they tighten, and are `tol` where they are fixed."""
    tol = tol if schedule is None else 0.1
    return hg.Implicit(
        solver=hg.LBFGS(),
        linsolve=hg.CG(tol=tol, max_iter=500),
        inner_steps=3000,
        inner_tol=tol,
        tighten=schedule,
        error_bar=False,
    )


def brute_force(problem: hg.Supervised) -> float:
    """The log λ of the lowest dev loss, by a grid from e^-6 to e^-14 and a bounded search around its best point."""
    solver, w = hg.LBFGS(), problem.init_params()

    def dev_loss(log_l2: float) -> float:
        nonlocal w  # the next training goes on from here; where the tolerance is met does not depend on it
        hparams = {"l2": torch.tensor(log_l2).exp()}
        w = Training(solver=solver, steps=5000, tol=1e-8).run(problem, hparams, w).params
        return problem.outer_loss(w, hparams, None).item()

    best = min(torch.linspace(-6, -14, 9).tolist(), key=dev_loss)
    bounds = (best - 1, best + 1)
    found: Any = minimize_scalar(dev_loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return float(found.x)


class Path(Callback):
    """What a run has spent and found at each outer step, as columns, and its CPU seconds."""

    def __init__(self) -> None:
        self.begin, self.seconds = time.process_time(), 0.0
        self.columns: dict[str, list[float]] = {name: [] for name in ("spent", "dev", "test", "log_l2")}

    def on_step(self, record: Record) -> None:
        self.seconds = time.process_time() - self.begin
        row = {
            "spent": spent_by(record),
            "dev": record.outer_loss,
            "test": record.metrics["test_loss"],
            "log_l2": record.hparams["l2"].log().median().item(),
        }
        for name, value in row.items():
            self.columns[name].append(float(f"{value:.7g}"))


def spent_by(record: Record) -> int:
    """Gradients of the inner loss so far, a Hessian product counted as two."""
    return record.num_gradients + PRODUCT * record.num_matvecs


def judged(problem: hg.Supervised, hparams: hg.Tensors) -> dict[str, Any]:
    """The losses at λ after a training from scratch to the tolerance of the searches."""
    found, log_l2 = train_and_evaluate(problem, estimator_of(None), hparams), hparams["l2"].log()
    metrics = {name: float(x) for name, x in problem.metrics(found.params, hparams).items()}
    return {
        "dev": found.outer_loss,
        "test": metrics["test_loss"],
        "accuracy": metrics["test_accuracy"],
        "log_l2": [round(x.item(), 5) for x in (log_l2.min(), log_l2.median(), log_l2.max())],
    }


def tuned(problem: hg.Supervised, schedule: str | None, outer_steps: int) -> tuple[Path, Record]:
    """By Adam on log λ, whose steps shrink as a cosine; loose gradients of a schedule rule out a line search."""
    path, adam = Path(), partial(torch.optim.Adam, lr=0.7, betas=(0.6, 0.99))
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=outer_steps)
    found = hg.fit(
        problem, estimator_of(schedule), adam, outer_steps, progress=False, callbacks=[path], scheduler=cosine
    )
    return path, found.last


def by_lbfgsb(problem: hg.Supervised) -> tuple[Path, Record]:
    """By scipy's L-BFGS-B for one penalty, with tolerances of 1e-9."""
    path = Path()
    return path, hg.fit(problem, estimator_of(None, 1e-9), hg.LBFGSB, 15, progress=False, callbacks=[path]).last


def by_search(problem: hg.Supervised, method: Search, budget: Budget) -> dict[str, Any]:
    """The row of a search."""
    begin, found = time.process_time(), search(problem, estimator_of(None), method, budget)
    row = {"spent": spent_by(found.last), "cpu": time.process_time() - begin, "trials": len(found.history)}
    return judged(problem, found.best.hparams) | row


def measured(seed: int, per: str) -> dict[str, dict[str, Any]]:
    """The row of each method, with its path where it has one."""
    problem = problem_of(seed, per)
    rows = {"start": judged(problem, problem.init_hparams())}
    # Fixed tolerances of many penalties, which take the most time, on one split only.
    names = [name for name in SCHEDULES if name != "fixed" or per == "all" or seed == SEEDS[0]]
    runs = {name: tuned(problem, SCHEDULES[name], OUTER_STEPS[per]) for name in names}
    if per == "all":
        runs["L-BFGS-B"] = by_lbfgsb(problem)
    for name, (path, last) in runs.items():
        row = judged(problem, last.hparams) | {"spent": spent_by(last), "cpu": path.seconds}
        is_drawn = per == "all" or seed == SEEDS[0]
        rows[name] = row | ({"path": path.columns} if is_drawn else {})
    budget = Budget(gradients=rows["cubic"]["spent"])
    if per != "weight":
        rows["TPE"] = by_search(problem, TPE(seed=seed), budget)
    if per == "all":
        rows["grid"] = by_search(problem, GridSearch(), budget)
    return rows


def show(numbers: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=150)
    splits, truths = [numbers["splits"][str(seed)] for seed in SEEDS], numbers["truths"]
    for seed, truth, rows in zip(SEEDS, truths, splits, strict=True):
        found = {name: abs(row["log_l2"][1] - truth) for name, row in rows["all"].items()}
        distances = ", ".join(f"{name} {x:.1e}" for name, x in found.items())
        console.print(f"seed {seed}: log λ by brute force is {truth:.5f}; off it: {distances}")
    columns = ("dev", "test", "accuracy", "gradients + 2 products", "CPU s", "log λ: least", "median", "largest")
    table = Table("penalties", "method", *columns, title=f"mean ± deviation over {len(SEEDS)} splits")
    for per in OUTER_STEPS:
        for name in splits[0][per]:
            rows = [split[per][name] for split in splits if name in split[per]]
            cells = [spread([row[key] for row in rows]) for key in ("dev", "test", "accuracy")]
            costs = [f"{statistics.mean(row.get(key, 0) for row in rows):.1f}" for key in ("spent", "cpu")]
            logs = [f"{statistics.mean(row['log_l2'][i] for row in rows):.2f}" for i in range(3)]
            table.add_row(per, name, *cells, *costs, *logs)
    console.print(table)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else " on one split"
    return f"{statistics.mean(values):.4f}{deviation}"


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    numbers: dict[str, Any] = {"splits": {}, "truths": []}
    for seed in SEEDS:
        numbers["truths"].append(brute_force(problem_of(seed, "all")))
        numbers["splits"][str(seed)] = {}
        for per in OUTER_STEPS:
            numbers["splits"][str(seed)][per] = measured(seed, per)
            print(f"seed {seed}, one per {per}: {time.process_time():.0f} CPU s", flush=True)
            save("logistic_l2", numbers)
    show(numbers)


if __name__ == "__main__":
    main()
