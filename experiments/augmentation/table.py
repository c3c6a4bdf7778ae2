"""The table of README.md: 100 train images as they are, moved at random, and moved by a learned network.

python -m experiments.augmentation.table
"""

import statistics
import time
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.budget import PRODUCT
from hypergrad.callback.base import Result
from hypergrad.problem.network import perceptron
from hypergrad.selection import first_of
from hypergrad.solver.training import train

SEEDS, NUM_TRAIN, OUTER_STEPS, INNER_STEPS, FINAL_STEPS, NUM_TERMS = range(3), 100, 40, 50, 500, 10
SOLVER = hg.Momentum(lr=0.05)
ADAM = {"network": 0.01, "scalars": 0.1}
"""Outer learning rates, with a network and with logarithms alone."""


def estimator(num_terms: int) -> hg.Implicit:
    """That of `experiment=augmentation` with so many terms of the Neumann series; T1–T2 with none."""
    return hg.Implicit(
        solver=SOLVER,
        linsolve=hg.Neumann(num_terms=num_terms),
        product=hg.GaussNewton(),
        inner_steps=INNER_STEPS,
        inner_tol=0.0,
        error_bar=False,
    )


def problem_of(data: hg.Splits, seed: int, effects: Mapping[str, hg.Effect]) -> hg.Supervised:
    """A perceptron on a few train images, with a penalty and whatever moves the images."""
    torch.manual_seed(seed)
    return hg.Supervised(
        model=perceptron(784, 10, (32,)),
        loss=torch.nn.functional.cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={**effects, "l2": hg.L2(init=1e-3, on="*.weight")},
        seed=seed,
    )


def learned(problem: hg.Supervised, num_terms: int, lr: float) -> Result:
    """Hyperparameters by descent."""
    adam = partial(torch.optim.Adam, lr=lr)
    return hg.fit(problem, estimator(num_terms), adam, OUTER_STEPS, progress=False)


def judged(problem: hg.Supervised, hparams: hg.Tensors) -> dict[str, float]:
    """What a training from the start at these hyperparameters comes to."""
    w = train(problem, SOLVER, hparams, problem.init_params(), max_steps=FINAL_STEPS).params
    with torch.no_grad():
        dev = problem.outer_loss(w, hparams, None).item()
        right = problem.model(w, problem.X_dev, None).argmax(1) == problem.y_dev
        return {"dev": dev, "dev accuracy": right.double().mean().item()} | {
            name.replace("_", " "): float(x) for name, x in problem.metrics(w, hparams).items()
        }


def spent(result: Result) -> float:
    """Gradients, those of products too."""
    return result.history[-1]["run/gradients"] + PRODUCT * result.history[-1]["run/products"]


def measured(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of a split, and what the figure shows of it."""
    data = first_of(hg.mnist5k(seed=seed), train=NUM_TRAIN)
    torch.manual_seed(seed)
    network = hg.AffineNetwork(network=perceptron(784, 12, (16,)))
    plain, affine, entries, net = (
        problem_of(data, seed, effects)
        for effects in (
            {},
            {"moves": hg.RandomAffine()},
            {"moves": hg.RandomAffine(per_entry=True)},
            {"moves": network},
        )
    )
    rows: dict[str, Any] = {}

    def note(name: str, problem: hg.Supervised, hparams: hg.Tensors, result: Result | None = None) -> None:
        rows[name] = judged(problem, hparams) | {
            "l2": hparams["l2"].item(),
            "moves": hparams["moves"].tolist() if "moves" in hparams and hparams["moves"].numel() <= 6 else None,
            "gradients": 0.0 if result is None else spent(result),
            "history": [] if result is None else [round(row["loss/dev"], 4) for row in result.history],
        }
        print(seed, name, {k: v for k, v in rows[name].items() if k != "history"}, flush=True)

    runs = {
        "images as they are, penalty learned": (plain, NUM_TERMS, ADAM["scalars"]),
        "random affine, one strength learned": (affine, NUM_TERMS, ADAM["scalars"]),
        "random affine, six strengths learned": (entries, NUM_TERMS, ADAM["scalars"]),
        "network, Neumann": (net, NUM_TERMS, ADAM["network"]),
        "network, T1–T2": (net, 0, ADAM["network"]),
    }
    note("images as they are, default", plain, plain.init_hparams())
    note("random affine, default", affine, affine.init_hparams())
    note("network, untrained", net, net.init_hparams())
    results = {}
    for name, (problem, num_terms, lr) in runs.items():
        results[name] = learned(problem, num_terms, lr)
        note(name, problem, results[name].last.hparams, results[name])
    budget = hg.Budget(gradients=spent(results["network, Neumann"]))
    trials = hg.search(
        affine, hg.Unrolled(solver=SOLVER, inner_steps=FINAL_STEPS), hg.TPE(width=3.0, seed=seed), budget
    )
    note("random affine, one strength by TPE", affine, trials.best.hparams, trials)
    pictures = {}
    if seed == 0:
        generator = torch.Generator().manual_seed(1)
        X = data.train.X[:10]
        shown = {
            "random affine, default": affine,
            "random affine, six strengths learned": entries,
            "network, Neumann": net,
        }
        pictures["train images"] = X
        for name, problem in shown.items():
            hparams = results[name].last.hparams if name in results else problem.init_hparams()
            pictures[name] = problem.effects.augmented(X, hparams, generator)
            pictures[f"{name}, again"] = problem.effects.augmented(X, hparams, generator)
    return rows, {
        name: [[round(x, 2) for x in image] for image in images.tolist()] for name, images in pictures.items()
    }


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    warnings.simplefilter("ignore")
    begin, found, pictures = time.process_time(), {}, {}
    for seed in SEEDS:
        found[str(seed)], drawn = measured(seed)
        pictures |= drawn
        print(f"{seed}: {time.process_time() - begin:.0f} s of CPU", flush=True)
        save("augmentation", {"rows": found, "pictures": pictures})
    columns = ("dev", "test loss", "dev accuracy", "test accuracy")
    table = Table("", *columns, "gradients", title="mean and deviation over 3 splits")
    for name in found["0"]:
        values = {key: [rows[name][key] for rows in found.values()] for key in (*columns, "gradients")}
        cells = [f"{statistics.mean(values[key]):.4f} ± {statistics.stdev(values[key]):.4f}" for key in columns]
        table.add_row(name, *cells, f"{statistics.mean(values['gradients']):.0f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
