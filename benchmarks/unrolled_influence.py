"""Influence through training: seconds and memory, in units of the training itself.

python -m benchmarks.unrolled_influence [--dev N] [--steps N] [--threads N] [--only SOLVER…]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.measure import limit_threads
from benchmarks.peers.memory import peak_megabytes
from hypergrad.training.training import Training

SOLVERS = {"gradient descent": hg.GradientDescent(lr=0.1), "momentum": hg.Momentum(lr=0.05), "adam": hg.Adam(lr=1e-3)}
TRAIN, BATCH = 2000, 64


def network(dev: int, train: int = TRAIN) -> hg.Supervised:
    """784-125-10 units, 99,385 parameters, on images of random values, in batches of 64."""
    torch.manual_seed(0)
    X, y = torch.rand(train + dev, 784), torch.randint(10, (train + dev,))
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(784, 125), nn.ReLU(), nn.Linear(125, 10)),
        loss=cross_entropy,
        train=(X[:train], y[:train]),
        dev=(X[train:], y[train:]),
        batch_size=BATCH,
        hyperparameters={"l2": hg.L2(init=1e-4)},
    )


def seconds(work: Callable[[], Any]) -> float:
    """Of the processor, by which other processes do not count."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measured(solver: hg.InnerSolver, problem: hg.Supervised, steps: int) -> list[float]:
    """Seconds of training, of the scores of the mean dev loss and of each dev loss, and megabytes of the latter."""
    hparams, rows = problem.init_hparams(), torch.arange(problem.size("dev"))
    run = hg.UnrolledInfluence(solver=solver, inner_steps=steps).train(problem, hparams)
    training = Training(solver=solver, steps=steps)
    training.run(problem, hparams, problem.init_params())
    trained = seconds(lambda: training.run(problem, hparams, problem.init_params()))
    mean = seconds(run.scores)
    begin = time.process_time()
    _, megabytes = peak_megabytes(lambda: run.scores(rows))
    return [trained, mean, time.process_time() - begin, megabytes]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dev", type=int, default=200, help="dev examples")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=SOLVERS, default=list(SOLVERS), help="solvers")
    given = parser.parse_args()
    limit_threads(given.threads)
    problem = network(given.dev)
    table = Table(
        *("", "training, s", "mean, s", "/ training", f"each of {given.dev}, s", "/ training / dev example", "MB"),
        title=f"{given.steps} steps, {TRAIN} train examples",
    )
    for name in given.only:
        trained, mean, each, megabytes = measured(SOLVERS[name], problem, given.steps)
        ratios = f"{mean / trained:.1f}", f"{each / trained / given.dev:.2f}"
        table.add_row(name, f"{trained:.2f}", f"{mean:.2f}", ratios[0], f"{each:.1f}", ratios[1], f"{megabytes:.0f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
