"""The tables of README.md: starts that were learned for adaptation, against the random one.

python -m experiments.maml.table
"""

import statistics
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.maml.setting import SEEDS, Setting, images, waves
from experiments.numbers import save

LENGTHS = (1, 10)
HORIZONS = {"MAML": None, "first-order MAML": 0}


def rows_of(setting: Setting, seed: int) -> dict[str, dict[str, Any]]:
    """Each way to a start, judged on held-out tasks."""
    solver = hg.GradientDescent(lr=setting.lr)
    lr, steps = setting.from_scratch(seed)
    random = setting.problem(seed).init_hparams()
    rows: dict[str, dict[str, Any]] = {
        "random start": {"start": random},
        "random start, best of lr × steps": {"start": random, "solver": hg.GradientDescent(lr=lr), "steps": steps},
    }
    for name, horizon in HORIZONS.items():
        estimator = hg.Unrolled(solver=solver, inner_steps=setting.inner_steps, horizon=horizon)
        result = setting.learned(seed, estimator)
        rows[name] = {"start": result.last.hparams, "seconds": result.last.seconds, "history": result.history}
    return {name: judged(setting, seed, solver, row) for name, row in rows.items()}


def judged(setting: Setting, seed: int, solver: hg.InnerSolver, row: dict[str, Any]) -> dict[str, Any]:
    """The losses from a start after `inner_steps` steps, and after some other numbers of steps."""
    solver, steps = row.get("solver", solver), row.get("steps", setting.inner_steps)
    found: dict[str, Any] = setting.judged(seed, row["start"], solver, steps)
    found |= {f"after {k}": setting.judged(seed, row["start"], solver, k)["test_loss"] for k in LENGTHS}
    found |= {"lr": solver.coefficients()["lr"], "steps": steps, "seconds": row.get("seconds")}
    losses = [entry["loss/dev"] for entry in row.get("history", [])]
    return found | {"dev": [statistics.mean(losses[k : k + 50]) for k in range(0, len(losses) - 1, 50)]}


def centroids(setting: Setting, seed: int) -> dict[str, float]:
    """Each query goes to the class whose support has the nearest mean."""
    problem = setting.problem(seed, tasks=1, test_tasks=setting.test_tasks)
    ways = setting.widths[1]
    X, y = problem.X_support[1:], problem.y_support[1:]
    means = torch.stack([X[y == k].view(len(X), -1, X.shape[2]).mean(1) for k in range(ways)], 1)
    nearest = torch.cdist(problem.X_query[1:], means).argmin(2)
    return {"test_accuracy": (nearest == problem.y_query[1:]).double().mean().item()}


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    settings = {"sine waves": waves()}
    for name, data in {
        "digits": hg.digits(),
        "Fashion-MNIST": hg.idx_images(train=10_000, dev=1000, test=1000),
    }.items():
        settings |= {f"{name}, {shots} of each class": images(data, shots) for shots in (1, 5)}
    numbers: dict[str, dict[str, list[Any]]] = {}
    for name, setting in settings.items():
        rows: dict[str, list[Any]] = numbers.setdefault(name, {})
        for seed in SEEDS:
            found = rows_of(setting, seed)
            if name != "sine waves":
                found["nearest centroid"] = centroids(setting, seed)
            for row, content in found.items():
                rows.setdefault(row, []).append(content)
            save("maml", numbers)
        show(name, rows)


def show(name: str, rows: dict[str, list[Any]]) -> None:
    """Print a table, mean and deviation over the seeds."""
    keys = {"test_loss_before": 4, "test_loss": 4, "after 1": 4, "after 10": 4, "test_accuracy": 4, "seconds": 0}
    table = Table("", *keys, title=name)
    for row, found in rows.items():
        cells = []
        for key, places in keys.items():
            values = [content[key] for content in found if content.get(key) is not None]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.{places}f} ± {spread:.{places}f}" if values else "")
        table.add_row(row, *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
