"""The table of README.md: potentials learned through mean-field inference, unrolled and at its fixed point.

python -m experiments.mean_field.table
"""

import statistics
import warnings
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Record

SEEDS, OUTER_STEPS, TRIALS = range(3), 60, 100
SOLVER = hg.FixedPoint(rate=0.5)
ESTIMATORS: dict[str, hg.HypergradEstimator] = {
    **{f"unrolled, T = {T}": hg.Unrolled(solver=SOLVER, inner_steps=T) for T in (2, 5, 20)},
    "implicit": hg.Implicit(
        solver=SOLVER, linsolve=hg.GMRES(tol=1e-6), inner_steps=500, inner_tol=1e-6, error_bar=False
    ),
}
ADAM = partial(torch.optim.Adam, lr=0.05)


def problem_of(seed: int, radius: int) -> hg.MeanField:
    """The problem of `experiment=mean_field` with noise and split of a seed."""
    return hg.MeanField(hg.digits(seed=seed, dev=0.1, test=0.2), radius=radius, seed=seed)


def row_of(record: Record) -> dict[str, Any]:
    """The losses of a record."""
    return {
        "dev": record.outer_loss,
        "test": record.metrics["test_loss"],
        "pixels": 100 * record.metrics["test_pixel_error"],
        "seconds": record.seconds,
        "coupling": record.hparams["coupling"].tolist(),
        "unary": record.hparams["unary"].item(),
    }


def images(problem: hg.MeanField, params: hg.Tensors, count: int = 8) -> list[list[float]]:
    """The probability of white in the first test images, each flat."""
    return torch.sigmoid(2 * params["logits"][problem.num_dev :][:count]).tolist()


def main() -> None:
    """Print the table and keep what the figure shows."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    rows: dict[str, list[dict[str, Any]]] = {}
    pictures: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        for radius in (1, 2):
            problem = problem_of(seed, radius)
            for name, estimator in ESTIMATORS.items():
                if radius == 2 and name.endswith((" 2", " 5")):
                    continue
                result = hg.fit(problem, estimator, ADAM, OUTER_STEPS, progress=False, warm_start=False)
                rows.setdefault("pixel by pixel (start)", []).append(row_of(result.first))
                rows.setdefault(f"radius {radius}, {name}", []).append(row_of(result.best))
                if seed == 0 and name.endswith("20"):
                    test = slice(problem.num_dev, problem.num_dev + 8)
                    pictures |= {part: (getattr(problem, part)[test] / 2 + 0.5).tolist() for part in ("clean", "noisy")}
                    pictures["pixel by pixel"] = images(problem, result.first.params)
                    pictures[f"learned, radius {radius}"] = images(problem, result.best.params)
            unrolled = ESTIMATORS["unrolled, T = 20"]
            tpe = search(problem, unrolled, TPE(width=2.0, seed=seed), Budget(trials=TRIALS)).best
            rows.setdefault(f"radius {radius}, TPE, T = 20", []).append(row_of(tpe))
    table = Table(
        "", "dev loss", "test loss", "wrong test pixels", "s", title=f"mean and deviation over {len(SEEDS)} seeds"
    )
    for name, found in rows.items():
        numbers = [[row[key] for row in found] for key in ("dev", "test", "pixels", "seconds")]
        means = [f"{statistics.mean(x):.4f} ± {statistics.stdev(x):.4f}" for x in numbers[:2]]
        means += [f"{statistics.mean(numbers[2]):.2f} ± {statistics.stdev(numbers[2]):.2f} %"]
        table.add_row(name, *means, f"{statistics.mean(numbers[3]):.1f}")
    Console(width=150).print(table)
    save("mean_field", {"rows": rows, "pictures": pictures})


if __name__ == "__main__":
    main()
