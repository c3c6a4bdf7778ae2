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
from hypergrad.callback.base import Result
from hypergrad.core.cost import PRODUCT
from hypergrad.data.selection import first_of
from hypergrad.model.network import perceptron
from hypergrad.training.training import Training

SEEDS, NUM_TRAIN, OUTER_STEPS, INNER_STEPS, FINAL_STEPS, NUM_TERMS = range(3), 100, 40, 50, 500, 10
SOLVER = hg.Momentum(lr=0.05)


def estimator(num_terms: int) -> hg.Implicit:
    """The estimator of `experiment=augmentation` with this many terms of the Neumann series; without terms, T1–T2."""
    return hg.Implicit(
        solver=SOLVER,
        linsolve=hg.Neumann(num_terms=num_terms),
        product=hg.GaussNewton(),
        inner_steps=INNER_STEPS,
        inner_tol=0.0,
        error_bar=False,
    )


def problem_of(data: hg.Splits, seed: int, effects: Mapping[str, hg.Effect]) -> hg.Supervised:
    """A perceptron on a few train images, with a penalty and a way to move the images."""
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
    """The losses after a training from the start at these hyperparameters."""
    w = Training(solver=SOLVER, steps=FINAL_STEPS).run(problem, hparams, problem.init_params()).params
    with torch.no_grad():
        dev = problem.outer_loss(w, hparams, None).item()
        right = problem.model(w, problem.X_dev, None).argmax(1) == problem.y_dev
        return {"dev": dev, "dev accuracy": right.double().mean().item()} | {
            name.replace("_", " "): float(x) for name, x in problem.metrics(w, hparams).items()
        }


def spent(result: Result) -> float:
    """Gradients, those of products too."""
    return result.history[-1]["run/gradients"] + PRODUCT * result.history[-1]["run/products"]


def problems(data: hg.Splits, seed: int) -> dict[str, hg.Supervised]:
    """The same classifier with every way to move its train images."""
    torch.manual_seed(seed)
    network = hg.AffineNetwork(network=perceptron(784, 12, (16,)))
    moves = {"one": hg.RandomAffine(), "six": hg.RandomAffine(per_entry=True), "network": network}
    effects = {"none": {}} | {name: {"moves": move} for name, move in moves.items()}
    return {name: problem_of(data, seed, effect) for name, effect in effects.items()}


def row_of(problem: hg.Supervised, hparams: hg.Tensors, result: Result | None = None) -> dict[str, Any]:
    """Some hyperparameters, their losses, and the cost of finding them."""
    return judged(problem, hparams) | {
        "l2": hparams["l2"].item(),
        "moves": hparams["moves"].tolist() if "moves" in hparams and hparams["moves"].numel() <= 6 else None,
        "gradients": 0.0 if result is None else spent(result),
        "history": [] if result is None else [round(row["loss/dev"], 4) for row in result.history],
    }


RUNS = {
    "images as they are, penalty learned": ("none", NUM_TERMS, 0.1),
    "random affine, one strength learned": ("one", NUM_TERMS, 0.1),
    "random affine, six strengths learned": ("six", NUM_TERMS, 0.1),
    "network, Neumann, lr 0.01": ("network", NUM_TERMS, 0.01),
    "network, T1–T2, lr 0.01": ("network", 0, 0.01),
    "network, Neumann, lr 0.002": ("network", NUM_TERMS, 0.002),
    "network, T1–T2, lr 0.002": ("network", 0, 0.002),
}
"""How the images are moved, terms of the series, and the learning rate of Adam."""


def measured(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of a split, and what the figure shows of the first."""
    data = first_of(hg.mnist5k(seed=seed), train=NUM_TRAIN)
    ways = problems(data, seed)
    rows: dict[str, Any] = {}
    starts = {"images as they are, default": "none", "random affine, default": "one", "network, untrained": "network"}
    for name, way in starts.items():
        rows[name] = row_of(ways[way], ways[way].init_hparams())
    results = {name: learned(ways[way], num_terms, lr) for name, (way, num_terms, lr) in RUNS.items()}
    for name, result in results.items():
        rows[name] = row_of(ways[RUNS[name][0]], result.last.hparams, result)
    budget = hg.Budget(gradients=spent(results["network, Neumann, lr 0.002"]))
    trained = hg.Unrolled(solver=SOLVER, inner_steps=FINAL_STEPS)
    trials = hg.search(ways["one"], trained, hg.TPE(width=3.0, seed=seed), budget)
    rows["random affine, one strength by TPE"] = row_of(ways["one"], trials.best.hparams, trials)
    return rows, {} if seed else pictured(data.train.X[:10], ways, results)


def pictured(X: torch.Tensor, ways: dict[str, hg.Supervised], results: dict[str, Result]) -> dict[str, list[str]]:
    """Some train images as they are, and twice as each of three ways moves them."""
    pictures = {"train images": X}
    six, network = "random affine, six strengths learned", "network, Neumann, lr 0.002"
    shown = {
        "random affine, default": ("one", ways["one"].init_hparams()),
        six: ("six", results[six].last.hparams),
        network: ("network", results[network].last.hparams),
    }
    for place, (name, (way, hparams)) in enumerate(shown.items()):
        generator = torch.Generator().manual_seed(place)
        for title in (name, f"{name}, again"):
            pictures[title] = ways[way].effects.augmented(X, hparams, generator)
    return {name: [encoded(image) for image in images] for name, images in pictures.items()}


def encoded(image: torch.Tensor) -> str:
    """An image of values from 0 to 1 as two hexadecimal digits for each pixel."""
    return bytes((255 * image).round().byte().tolist()).hex()


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    warnings.simplefilter("ignore")
    begin, found, pictures = time.process_time(), {}, {}
    for seed in SEEDS:
        found[str(seed)], drawn = measured(seed)
        pictures |= drawn
        print(found[str(seed)], flush=True)
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
