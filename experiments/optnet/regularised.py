"""The second table of README.md: the matrix learned on more signals, and held to total variation by a penalty.

python -m experiments.optnet.regularised
"""

import statistics
import time
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import hypergrad as hg
from experiments.numbers import save
from experiments.optnet.table import Strength
from hypergrad.training.training import Training

SEEDS, SIZES, STEPS, EVERY = range(3), (200, 1000), 12, 2
PENALTIES = (0.0, 1e-2, 1e-1)
NUM_CHOOSE, NUM_TEST = 300, 700
SOLVER = hg.FixedPoint(rate=1.5)


@dataclass(frozen=True, kw_only=True)
class PerSignal(hg.LinearSolver):
    """A system of its own for each signal: as many products as a signal has entries show all of them at once.

    Attributes:
        size: entries of u for one signal.
    """

    size: int

    def solve_unit(self, A: Any, b: Tensor, x0: Tensor | None) -> hg.LinearSolution:
        m = self.size
        blocks = A(torch.eye(m, dtype=b.dtype).repeat(len(b) // m, 1)).view(-1, m, m)
        x = torch.linalg.solve(blocks, b.view(-1, m))
        residual = torch.linalg.vector_norm((blocks @ x[..., None]).reshape(-1) - b).item()
        return hg.LinearSolution(x.reshape(-1), residual, m, hg.Status.CONVERGED)


class Penalised(hg.TotalVariation):
    """The dev loss with a penalty on the distance of D from the differences of neighbours."""

    def __init__(self, *, penalty: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.penalty = penalty

    def outer_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        away = hparams["filters"] - self.hyperparameters()["filters"].value(self.noisy.dtype)
        return super().outer_loss(params, hparams, batch) + self.penalty * away.square().sum()


def estimator_of(problem: hg.TotalVariation) -> hg.Implicit:
    """Exact but for where training stops."""
    linsolve = PerSignal(size=problem.noisy.shape[1] - 1)
    return hg.Implicit(solver=SOLVER, linsolve=linsolve, inner_steps=3000, inner_tol=1e-4, error_bar=False)


def errors(problem: hg.TotalVariation, hparams: hg.Tensors, start: hg.Tensors) -> tuple[Tensor, hg.Tensors]:
    """The squared error of each signal, and the duals, for a start of the next."""
    w = Training(solver=SOLVER, steps=10000, tol=1e-4).run(problem, hparams, start).params
    return (problem.denoised(w, hparams) - problem.clean).square().mean(1), w


def path(fit: hg.TotalVariation, held: hg.TotalVariation, start: hg.Tensors) -> list[dict[str, Any]]:
    """Learning D and the strength on some signals: every few steps the errors on others."""
    result = hg.fit(fit, estimator_of(fit), hg.LBFGSB, STEPS, progress=False)
    found = []
    for step in range(0, len(result.history), EVERY):
        hparams = {name: values[step] for name, values in result.trajectory.items()}
        each, start = errors(held, hparams, start)
        fitted = result.history[step]["loss/dev"]
        found.append({"step": step, "objective": fitted, "choose": each[:NUM_CHOOSE], "test": each[NUM_CHOOSE:]})
    return found


def measured(seed: int, size: int) -> dict[str, Any]:
    """Total variation, and for each penalty the path of D away from it."""
    begin = time.process_time()
    tv = Strength(seed=seed, num_dev=size, num_test=1)
    adam = partial(torch.optim.Adam, lr=0.05)
    strength = hg.fit(tv, estimator_of(tv), adam, 40, progress=False).best.hparams["strength"].item()
    held = hg.TotalVariation(seed=1000 + seed, num_dev=NUM_CHOOSE, num_test=NUM_TEST, strength=strength)
    before, duals = errors(held, held.init_hparams(), held.init_params())
    before_test, paths = before[NUM_CHOOSE:], {}
    for penalty in PENALTIES:
        fit = Penalised(seed=seed, num_dev=size, num_test=1, strength=strength, penalty=penalty)
        paths[penalty] = path(fit, held, duals)
    best = min((row for rows in paths.values() for row in rows), key=lambda row: row["choose"].mean().item())
    last = paths[0.0][-1]
    chosen = next(penalty for penalty, rows in paths.items() if any(row is best for row in rows))
    gain = before_test - best["test"]
    return {
        "seed": seed,
        "size": size,
        "strength": strength,
        "total variation": [before[:NUM_CHOOSE].mean().item(), before_test.mean().item()],
        "chosen": {"penalty": chosen, "step": best["step"]},
        "unchosen": [last["choose"].mean().item(), last["test"].mean().item()],
        "learned": [best["choose"].mean().item(), best["test"].mean().item()],
        "gain": [gain.mean().item(), (gain.std() / len(gain) ** 0.5).item()],
        "paths": {
            f"{penalty:g}": [
                [row["step"], row["objective"], row["choose"].mean().item(), row["test"].mean().item()] for row in rows
            ]
            for penalty, rows in paths.items()
        },
        "seconds": time.process_time() - begin,
    }


def main() -> None:
    """Print the table and keep the numbers."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    found = []
    for size in SIZES:
        for seed in SEEDS:
            found.append(measured(seed, size))
            save("optnet", {"runs": found}, "regularised")
            print({key: value for key, value in found[-1].items() if key != "paths"}, flush=True)
    table = Table(
        "signals",
        "total variation",
        "learned",
        "no penalty, last step",
        "gain on test",
        "± of the mean",
        "penalty and step, chosen",
    )
    for size in SIZES:
        runs = [one for one in found if one["size"] == size]
        cells = [[one[key][1] for one in runs] for key in ("total variation", "learned", "unchosen")]
        gains = [f"{one['gain'][0]:+.5f}" for one in runs]
        deviations = [f"{one['gain'][1]:.5f}" for one in runs]
        choices = [f"{one['chosen']['penalty']:g} at {one['chosen']['step']}" for one in runs]
        means = [f"{statistics.mean(x):.5f}" for x in cells]
        table.add_row(str(size), *means, ", ".join(gains), ", ".join(deviations), ", ".join(choices))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
