"""The tables of README.md: 800 learning rates by descent against the best fixed one by TPE in the same CPU time.

python -m experiments.lr_schedule.table
"""

import statistics
import time
import warnings
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Result
from hypergrad.estimator.dev_loss import train_and_evaluate
from hypergrad.model.network import perceptron
from hypergrad.training.dynamics import Dynamics

SEEDS, STEPS, OUTER_STEPS, START, PROBES = range(3), 100, 50, 0.05, 9
OTHER_DRAWS = (100, 101, 102)
SOLVER = hg.Momentum(lr="rate", momentum=0.9)
REVERSIBLE = hg.Unrolled(solver=SOLVER, tape=hg.Reversible(), inner_steps=STEPS)


def problem_of(shape: tuple[int, ...], seed: int, draw: int | None = None) -> hg.Supervised:
    """A 784-50-50-50-10 network on Fashion-MNIST with learning rates of this shape.

    Args:
        shape: of the rates, () or (steps, tensors).
        seed: of the choice of images.
        draw: of initial weights and batches; None takes `seed`.
    """
    data, draw = hg.idx_images(seed=seed, train=10_000, dev=2000, test=10_000), seed if draw is None else draw
    torch.manual_seed(draw)
    return hg.Supervised(
        model=perceptron(784, 10, (50, 50, 50)),
        loss=cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"rate": hg.Hyperparameter(START, shape=shape, constraint=hg.positive)},
        batch_size=200,
        seed=draw,
    )


def by_descent(seed: int) -> tuple[Result, float]:
    """50 steps of Adam on the logarithms of 800 rates, and their CPU seconds."""
    problem, adam = problem_of((STEPS, 8), seed), partial(torch.optim.Adam, lr=0.04)
    begin = time.process_time()
    found = hg.fit(problem, REVERSIBLE, adam, OUTER_STEPS, progress=False, warm_start=False)
    return found, time.process_time() - begin


def by_tpe(seed: int, seconds: float) -> tuple[Result, float]:
    """The best fixed rate within e^±4 of the start, by as many trials as fit into the CPU seconds, and their own."""

    def searched(trials: int) -> tuple[Result, float]:
        begin = time.process_time()
        found = search(problem, REVERSIBLE, TPE(width=4.0, seed=seed), Budget(trials=trials))
        return found, time.process_time() - begin

    problem = problem_of((), seed)
    each = searched(PROBES)[1] / (PROBES + 1)
    return searched(max(1, round(seconds / each) - 1))


def curve(problem: hg.Supervised, rate: torch.Tensor) -> list[float]:
    """The dev loss after each training step."""
    hparams, params = {"rate": rate}, problem.init_params()
    losses = []
    with torch.no_grad():
        dynamics, state = Dynamics(problem, SOLVER, hparams), SOLVER.start(problem, params, hparams)
        for t in range(STEPS):
            state = dynamics.transition(state, t)
            losses.append(round(problem.outer_loss(SOLVER.params(state), hparams, None).item(), 4))
    return losses


def judged(problem: hg.Supervised, rate: torch.Tensor) -> dict[str, float]:
    """Dev loss, test loss and test accuracy after 100 training steps."""
    hparams = {"rate": rate}
    found = train_and_evaluate(problem, REVERSIBLE, hparams)
    metrics = {name: float(x) for name, x in problem.metrics(found.params, hparams).items()}
    return {"dev": found.outer_loss, "test": metrics["test_loss"], "accuracy": metrics["test_accuracy"]}


def measured(seed: int) -> dict[str, Any]:
    """The rows of a seed, with its curves and the schedule."""
    descent, spent = by_descent(seed)
    fixed, searched = by_tpe(seed, spent)
    rates = {
        "fixed 0.05, the start": torch.tensor(START),
        "best fixed, by TPE": fixed.best.hparams["rate"],
        "800, by descent": descent.last.hparams["rate"],
    }
    shapes = {name: tuple(rate.shape) for name, rate in rates.items()}
    here = {shape: problem_of(shape, seed) for shape in shapes.values()}
    found: dict[str, Any] = {"cpu": {"descent": spent, "TPE": searched}, "trials": len(fixed.history)}
    found["rows"] = {name: judged(here[shapes[name]], rate) for name, rate in rates.items()}
    found["rows"]["best fixed, by TPE"]["rate"] = rates["best fixed, by TPE"].item()
    found["other draws"] = {name: [] for name in rates}
    for draw in OTHER_DRAWS:
        others = {shape: problem_of(shape, seed, draw) for shape in here}
        for name, rate in rates.items():
            found["other draws"][name].append(judged(others[shapes[name]], rate))
    found["curves"] = {name: curve(here[shapes[name]], rate) for name, rate in rates.items()}
    found["outer"] = {tag: [round(row[tag], 4) for row in descent.history] for tag in ("loss/dev", "loss/test")}
    found["rates"] = [[float(f"{x:.4g}") for x in row] for row in rates["800, by descent"].T.tolist()]
    return found


def show(numbers: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table("learning rates", "weights and batches", "dev loss", "test loss", "test accuracy")
    runs = list(numbers.values())
    for where in ("rows", "other draws"):
        for name in runs[0][where]:
            found = [run[where][name] for run in runs]
            rows = found if where == "rows" else [row for draws in found for row in draws]
            cells = [[row[key] for row in rows] for key in ("dev", "test", "accuracy")]
            drawn = "those of the search" if where == "rows" else "others"
            table.add_row(name, drawn, *(f"{statistics.mean(x):.4f} ± {statistics.stdev(x):.4f}" for x in cells))
    console = Console(width=130)
    console.print(table)
    for seed, run in numbers.items():
        dev = {name: f"{row['dev']:.4f}" for name, row in run["rows"].items()}
        fixed = run["rows"]["best fixed, by TPE"]["rate"]
        console.print(f"seed {seed}: CPU s {run['cpu']}, {run['trials']} trials, best fixed {fixed:.4f}, dev {dev}")


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    warnings.simplefilter("ignore")
    numbers: dict[str, Any] = {}
    for seed in SEEDS:
        numbers[str(seed)] = measured(seed)
        print(seed, numbers[str(seed)]["rows"], numbers[str(seed)]["cpu"], flush=True)
        save("lr_schedule", numbers)
    show(numbers)


if __name__ == "__main__":
    main()
