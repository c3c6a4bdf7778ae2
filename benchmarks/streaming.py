"""Examples read when they are used, against the same in memory: Fashion-MNIST and a small convolutional network.

python -m benchmarks.streaming [--rounds N] [--threads N] [--steps N]
"""

import argparse
import os
import statistics
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

import hypergrad as hg
from benchmarks.measure import clocked, interleaved, ratios, timing_settings
from hypergrad.training.training import Training

WAYS: dict[str, dict[str, Any]] = {
    "in memory": {"stream": False},
    "streamed, no workers": {"stream": True},
    "streamed, 1 worker": {"stream": True, "num_workers": 1},
    "streamed, 2 workers": {"stream": True, "num_workers": 2},
}


class Pictures(Dataset):
    """Images as bytes, from which each example is made when it is read.

    Args:
        X: inputs from 0 to 1, shape (n, 784).
        y: classes, shape (n,).
    """

    def __init__(self, X: Tensor, y: Tensor) -> None:
        self.X, self.y = X.mul(255).round().to(torch.uint8).numpy().reshape(-1, 28, 28), y.tolist()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.X[index]).float().div(255)[None], self.y[index]


def network() -> nn.Module:
    """Two convolutions and a linear layer, 20,000 parameters."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
    pooled = nn.Sequential(first, nn.ReLU(), nn.AvgPool2d(2), second, nn.ReLU(), nn.AvgPool2d(2))
    return nn.Sequential(pooled, nn.Flatten(), nn.Linear(32 * 49, 10))


def made(data: hg.Splits, batch_size: int, **settings: Any) -> hg.Supervised:
    """The problem, with a penalty for each tensor."""
    return hg.Supervised(
        model=network(),
        loss=cross_entropy,
        train=Pictures(*data.train),
        dev=(data.dev.X.view(-1, 1, 28, 28), data.dev.y) if settings["stream"] is False else Pictures(*data.dev),
        hyperparameters={"l2": hg.L2(init=1e-3, per="tensor")},
        batch_size=batch_size,
        **settings,
    )


def works(problem: hg.Supervised, steps: int) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name: a training, and a hypergradient."""
    hparams, params = problem.init_hparams(), problem.init_params()
    training = Training(solver=hg.Momentum(lr=0.05), steps=steps)
    estimator = hg.Unrolled(solver=training.solver, inner_steps=steps, tape=hg.Store())
    return {
        "training": lambda: next(iter(training.run(problem, hparams, params).params.values())),
        "hypergradient": lambda: estimator.estimate(problem, hparams, params).grad["l2"],
    }


def run(data: hg.Splits, *, batch_size: int, steps: int, rounds: int) -> Table:
    """The table.

    Raises:
        RuntimeError: if a result differs from that in memory.
    """
    problems = {way: made(data, batch_size, **settings) for way, settings in WAYS.items()}
    shown = Table("", "x in memory", "quartiles apart", "ms a step", title=f"{steps} steps of {batch_size} examples")
    for name in ("training", "hypergradient"):
        each = {way: works(problem, steps)[name] for way, problem in problems.items()}
        for way, work in each.items():
            if not torch.equal(work(), each["in memory"]()):
                raise RuntimeError(f"The {name} {way} gives other bits than in memory.")
        times = interleaved({way: clocked(work) for way, work in each.items()}, repeats=rounds)
        for way in WAYS:
            ratio, spread = ratios(times[way], times["in memory"])
            milliseconds = 1e3 * statistics.median(times[way]) / steps
            shown.add_row(f"{name}, {way}", f"{ratio:.3f}", f"{spread:.3f}", f"{milliseconds:.1f}")
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="inner steps")
    processors = os.sched_getaffinity(0)
    options = timing_settings(parser, rounds=7)
    os.sched_setaffinity(0, processors)  # the threads are for the arithmetic; workers may use the other processors
    data = hg.idx_images(train=50_000, dev=1_000)
    Console(width=110).print(run(data, batch_size=128, steps=options.steps, rounds=options.rounds))


if __name__ == "__main__":
    main()
