"""The table of README.md: the initial scale of each tensor, learned over draws of the weights and the batches.

python -m experiments.init_scale.table [DATA LR]    # one setting only, beside those that are in numbers.json
"""

import math
import statistics
import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.cpu import TPEUntil
from experiments.numbers import load, save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.model.network import perceptron
from hypergrad.problem.supervised.supervised import on_splits
from hypergrad.training.training import Training

START, STEPS, OUTER_STEPS, BATCH_SIZE = math.exp(-3), 100, 100, 200
WIDTHS = (784, 50, 50, 50, 10)
SETTINGS = [("MNIST", 0.05), ("MNIST", 0.1), ("MNIST", 0.2)]
SEEDS, DRAWS, FACTORS = range(3), range(10_000, 10_005), [2.0**k for k in range(-3, 4)]
"""Draws to judge by are others than those of learning."""


def data_of(name: str) -> hg.Splits:
    """3000 or 10,000 train images, and dev and test."""
    if name == "MNIST":
        return hg.mnist5k(dev=0.2, test=0.2)
    return hg.idx_images(train=10_000, dev=2000, test=10_000)


def problem_of(data: hg.Splits) -> hg.Supervised:
    """A 784-50-50-50-10 network with standard normal weights and a scale for each of its eight tensors."""
    torch.manual_seed(0)
    return on_splits(
        data,
        model=perceptron(784, 10, (50, 50, 50), std=1.0),
        loss=cross_entropy,
        hyperparameters={"scale": hg.InitScale(init=START, per="tensor")},
        batch_size=BATCH_SIZE,
    )


def drawn(problem: hg.InnerProblem, draw: int) -> hg.Tensors:
    """Standard normal weights; the batches of a draw are those of the steps from draw · STEPS on."""
    generator = torch.Generator().manual_seed(draw)
    return {name: torch.randn(w.shape, generator=generator) for name, w in problem.init_params().items()}


def solver_of(lr: float) -> hg.Momentum:
    """A step of this size in the gradient is one of lr/(1 − 0.9) in the long run."""
    return hg.Momentum(lr=lr, momentum=0.9)


def learned(problem: hg.Supervised, lr: float, seed: int) -> dict[str, Any]:
    """Adam on log λ, whose steps shrink as a cosine; each hypergradient is that of another draw."""
    estimator = hg.Unrolled(solver=solver_of(lr), inner_steps=STEPS)
    u = torch.full((8,), math.log(START), requires_grad=True)
    adam = torch.optim.Adam([u], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=OUTER_STEPS)
    begin, path, losses = time.process_time(), [], []
    for step in range(OUTER_STEPS):
        draw, scale = 1000 * seed + step, u.detach().exp()
        found = estimator.estimate(problem, {"scale": scale}, drawn(problem, draw), inner_step=draw * STEPS)
        u.grad = found.grad["scale"] * scale
        path.append(scale.tolist())
        losses.append(found.outer_loss)
        adam.step()
        cosine.step()
    scale = u.detach().exp()
    return {"path": [*path, scale.tolist()], "dev": losses, "cpu": time.process_time() - begin}


def searched(problem: hg.Supervised, lr: float, cpu: float) -> dict[str, Any]:
    """TPE within e^±3 of the start, on one draw, in as much CPU time."""
    begin = time.process_time()
    estimator = hg.Unrolled(solver=solver_of(lr), inner_steps=STEPS)
    method = TPEUntil(width=3, deadline=begin + cpu)
    found = search(problem, estimator, method, Budget(trials=10_000))
    return {"scale": found.best.hparams["scale"].tolist(), "trials": len(found.history)}


def judged(problem: hg.Supervised, lr: float, scale: list[float]) -> dict[str, float]:
    """Mean dev and test loss and accuracy after training from five draws, and the spread of the dev loss."""
    hparams, rows = {"scale": torch.tensor(scale)}, []
    for draw in DRAWS:
        start, first = drawn(problem, draw), draw * STEPS
        w = Training(solver=solver_of(lr), steps=STEPS).run(problem, hparams, start, first_step=first).params
        with torch.no_grad():
            found = {name: float(x) for name, x in problem.metrics(w, hparams).items()}
            rows.append(found | {"dev_loss": problem.outer_loss(w, hparams, None).item()})
    means = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    return means | {"spread": statistics.stdev(row["dev_loss"] for row in rows)}


def heuristic() -> list[float]:
    """1/√n for the weights of n inputs, 0 for the biases."""
    return [scale for n in WIDTHS[:-1] for scale in (n**-0.5, 0.0)]


def mean_scale(runs: list[dict[str, Any]]) -> list[float]:
    """The geometric mean of what the runs have learned."""
    return torch.tensor([run["path"][-1] for run in runs]).log().mean(0).exp().tolist()


def of_setting(name: str, lr: float) -> dict[str, Any]:
    """The runs of a setting, how good their scales are, and the dev loss over that of the first layer alone."""
    problem = problem_of(data_of(name))
    runs = [learned(problem, lr, seed) for seed in SEEDS]
    scale = mean_scale(runs)
    by_tpe = searched(problem, lr, runs[0]["cpu"])
    candidates = {"start, e⁻³": [START] * 8, "1/√n, no biases": heuristic(), "learned": scale, "TPE": by_tpe["scale"]}
    return {
        "size": problem.X.square().sum(1).mean().sqrt().item(),
        "runs": runs,
        "TPE": by_tpe,
        "judged": {label: judged(problem, lr, values) for label, values in candidates.items()},
        "slice": {str(factor): judged(problem, lr, [factor * 784**-0.5, *scale[1:]]) for factor in FACTORS},
    }


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    chosen = [(sys.argv[1], float(sys.argv[2]))] if sys.argv[1:] else []
    numbers: dict[str, Any] = load("init_scale") if chosen else {}
    for name, lr in chosen or SETTINGS:
        numbers[f"{name}, lr {lr}"] = of_setting(name, lr)
        save("init_scale", numbers)
        show(numbers)


def show(numbers: dict[str, Any]) -> None:
    """Print the learned scales, and how good they are."""
    console = Console(width=140)
    layers = [f"layer {k + 1} × √{n}" for k, n in enumerate(WIDTHS[:-1])]
    table = Table("setting", "seed", *layers, "first × E‖x‖²^½", "largest bias", "CPU s")
    for name, found in numbers.items():
        for seed, run in enumerate(found["runs"]):
            last = run["path"][-1]
            scales = [f"{s * n**0.5:.2f}" for s, n in zip(last[::2], WIDTHS, strict=False)]
            rest = (f"{last[0] * found['size']:.2f}", f"{max(last[1::2]):.3f}", f"{run['cpu']:.0f}")
            table.add_row(name, str(seed), *scales, *rest)
    console.print(table)
    table = Table("setting", "scales", "dev loss", "spread", "test loss", "test accuracy")
    for name, found in numbers.items():
        for scales, row in found["judged"].items():
            cells = [f"{row[key]:.4f}" for key in ("dev_loss", "spread", "test_loss", "test_accuracy")]
            table.add_row(name, scales, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
