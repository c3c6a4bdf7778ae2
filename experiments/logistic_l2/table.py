"""The tables of README.md: L2 penalties of multinomial logistic regression, one, one per pixel, one per weight.

python -m experiments.logistic_l2.table
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
from hypergrad.callback.base import Callback, Record
from hypergrad.solver.training import train

SEEDS, OUTER_STEPS, START = range(2), 40, 1e-3
SCHEDULES = {"tightening": "cubic", "fixed": None}


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


def estimator_of(schedule: str | None, tol: float = 1e-6) -> hg.Implicit:
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
    """The log λ of the lowest dev loss, by a grid from e^-14 to e^-6 and a bounded search around its best point."""
    solver, start = hg.LBFGS(), problem.init_params()

    def dev_loss(log_l2: float) -> float:
        hparams = {"l2": torch.tensor(log_l2).exp()}
        w = train(problem, solver, hparams, start, max_steps=5000, tol=1e-8).params
        return problem.outer_loss(w, hparams, None).item()

    best = min(torch.linspace(-14, -6, 9).tolist(), key=dev_loss)
    bounds = (best - 1, best + 1)
    return float(minimize_scalar(dev_loss, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x)


def row_of(record: Record) -> dict[str, Any]:
    """What a record came to."""
    l2 = record.hparams["l2"].log()
    return {
        "dev": record.outer_loss,
        "test": record.metrics["test_loss"],
        "accuracy": record.metrics["test_accuracy"],
        "log_l2": [l2.min().item(), l2.median().item(), l2.max().item()],
        "inner_steps": record.num_inner_steps,
        "products": record.num_matvecs,
        "seconds": record.seconds,
    }


class Keep(Callback):
    """Keeps what each record came to."""

    def __init__(self) -> None:
        self.path: list[dict[str, Any]] = []

    def on_step(self, record: Record) -> None:
        self.path.append(row_of(record))


def tuned(seed: int, per: str, schedule: str | None, outer_steps: int = OUTER_STEPS) -> list[dict[str, Any]]:
    """The path of Adam, whose steps shrink as a cosine."""
    keep, adam = Keep(), partial(torch.optim.Adam, lr=0.7, betas=(0.6, 0.99))
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=outer_steps)
    problem, estimator = problem_of(seed, per), estimator_of(schedule)
    hg.fit(problem, estimator, adam, outer_steps, progress=False, callbacks=[keep], scheduler=cosine)
    return keep.path


def by_lbfgsb(problem: hg.Supervised) -> list[dict[str, Any]]:
    """The path of scipy's L-BFGS-B for one penalty, with tolerances of 1e-9."""
    keep = Keep()
    hg.fit(problem, estimator_of(None, 1e-9), hg.LBFGSB, 15, progress=False, callbacks=[keep])
    return keep.path


def main() -> None:
    """Print the tables and keep what the figure shows."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    console, runs, truths = Console(width=150), [], []
    columns = ("dev", "test", "accuracy", "inner steps", "products", "s", "log λ: least", "median", "largest")
    table = Table("seed", "penalties", "method", *columns)

    def add(seed: int, per: str, method: str, row: dict[str, Any]) -> None:
        numbers = [f"{row[key]:.4f}" for key in ("dev", "test", "accuracy")]
        numbers += [str(row["inner_steps"]), str(row["products"]), f"{row['seconds']:.1f}"]
        table.add_row(str(seed), per, method, *numbers, *(f"{x:.2f}" for x in row["log_l2"]))

    for seed in SEEDS:
        truths.append(brute_force(problem_of(seed, "all")))
        for per in ("all", "feature", "weight"):
            paths = {name: tuned(seed, per, schedule) for name, schedule in SCHEDULES.items()}
            if per == "all":
                paths["L-BFGS-B"] = by_lbfgsb(problem_of(seed, per))
                add(seed, per, "start", paths["fixed"][0])
            for name, path in paths.items():
                runs.append({"seed": seed, "per": per, "method": name, "path": path})
                add(seed, per, name, path[-1])
                if per == "all":
                    distance = abs(path[-1]["log_l2"][0] - truths[-1])
                    console.print(f"seed {seed}, {name}: |log λ − brute force {truths[-1]:.5f}| = {distance:.1e}")
            if per != "weight":
                last = paths["tightening"][-1]
                budget = Budget(gradients=last["inner_steps"] + 2 * last["products"])
                found = search(problem_of(seed, per), estimator_of(None), TPE(seed=seed), budget)
                add(seed, per, "TPE", row_of(found.best))
        save("logistic_l2", {"runs": runs, "truths": truths})
        console.print(f"seed {seed} done")
    console.print(table)


if __name__ == "__main__":
    main()
