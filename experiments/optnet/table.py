"""The table of README.md: total variation, with its strength tuned, and with its matrix learned too.

python -m experiments.optnet.table
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
from hypergrad.callback.base import Result

SEEDS, OUTER_STEPS, TRIALS = range(3), 100, 60
ESTIMATOR = hg.Implicit(
    solver=hg.FixedPoint(rate=1.5),
    linsolve=hg.GMRES(tol=1e-4, max_iter=100),
    inner_steps=2000,
    inner_tol=1e-4,
    error_bar=False,
)


class Strength(hg.TotalVariation):
    """With D as it is."""

    def hyperparameters(self) -> dict[str, hg.Hyperparameter]:
        return {"strength": super().hyperparameters()["strength"]}

    def denoised(self, params: hg.Tensors, hparams: hg.Tensors) -> torch.Tensor:
        return super().denoised(params, self.whole(hparams))

    def optimality(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> hg.Tensors:
        return super().optimality(params, self.whole(hparams), batch)

    def whole(self, hparams: hg.Tensors) -> hg.Tensors:
        """Both hyperparameters."""
        return {"filters": super().hyperparameters()["filters"].value(self.noisy.dtype)} | hparams


def tuned(problem: hg.TotalVariation, lr: float, outer_steps: int = OUTER_STEPS) -> Result:
    """Adam on the hypergradient."""
    adam = partial(torch.optim.Adam, lr=lr)
    return hg.fit(problem, ESTIMATOR, adam, outer_steps, progress=False)


def main() -> None:
    """Print the table and keep what the figure shows."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    rows: dict[str, list[list[float]]] = {}
    numbers: dict[str, Any] = {}

    def add(name: str, record: Any) -> None:
        rows.setdefault(name, []).append([record.outer_loss, record.metrics["test_loss"], record.seconds])

    for seed in SEEDS:
        problem = hg.TotalVariation(seed=seed)
        strength = tuned(Strength(seed=seed), 0.05, 40)
        best = strength.best.hparams["strength"].item()
        learned = tuned(hg.TotalVariation(seed=seed, strength=best), 0.001)
        noisy = [
            (problem.noisy - problem.clean)[part].square().mean().item() for part in (slice(200), slice(200, None))
        ]
        rows.setdefault("the signals as they are", []).append([*noisy, 0.0])
        add("strength 0.5 (start)", strength.first)
        add(
            "strength by TPE, 60 trials",
            search(Strength(seed=seed), ESTIMATOR, TPE(width=3.0, seed=seed), Budget(trials=60)).best,
        )
        add("strength by gradient, 40 steps", strength.best)
        add("matrix and strength from there, 100 steps", learned.best)
        if seed == 0:
            w, hparams = learned.best.params, learned.best.hparams
            before = strength.best.params["dual"], problem.init_hparams()["filters"]
            test = slice(200, 204)
            numbers = {
                "clean": problem.clean[test].tolist(),
                "noisy": problem.noisy[test].tolist(),
                "total variation": (problem.noisy - before[0] @ before[1])[test].tolist(),
                "learned": problem.denoised(w, hparams)[test].tolist(),
                "filters": hparams["filters"].tolist(),
                "path": [[row["loss/dev"], row["loss/test"]] for row in learned.history],
            }
    table = Table(
        "", "dev error", "test error", "s", title=f"mean squared error, mean and deviation over {len(SEEDS)} seeds"
    )
    for name, found in rows.items():
        dev, test, seconds = zip(*found, strict=True)
        means = [f"{statistics.mean(x):.5f} ± {statistics.stdev(x):.5f}" for x in (dev, test)]
        table.add_row(name, *means, f"{statistics.mean(seconds):.1f}")
    Console(width=130).print(table)
    save("optnet", {"rows": rows} | numbers)


if __name__ == "__main__":
    main()
