"""The table of README.md: the initial scale of each layer, learned from three starts.

python -m experiments.init_scale.table
"""

from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.numbers import save
from hypergrad.problem.network import perceptron

STARTS, SEEDS, OUTER_STEPS = (0.05, 0.2), range(2), 40
ESTIMATOR = hg.Unrolled(solver=hg.Momentum(lr=0.05, momentum=0.9), inner_steps=50)


def run(start: float, seed: int) -> list[dict[str, Any]]:
    """The history of a run with one scale for each tensor of a 784-50-50-50-10 network with weights of deviation 1."""
    data = hg.idx_images(seed=seed, train=5000, dev=1000, test=2000)
    torch.manual_seed(seed)
    problem = hg.Supervised(
        model=perceptron(784, 10, (50, 50, 50), std=1.0),
        loss=cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"scale": hg.InitScale(init=start, per="tensor")},
        batch_size=100,
        seed=seed,
    )
    optimizer = partial(torch.optim.Adam, lr=0.1)
    trainer = hg.Trainer(
        problem=problem, estimator=ESTIMATOR, optimizer=optimizer, outer_steps=OUTER_STEPS, warm_start=False
    )
    result = trainer.fit()
    scales = result.trajectory["scale"].tolist()
    return [row | {"scale": scale} for row, scale in zip(result.history, scales, strict=True)]


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    numbers: dict[str, Any] = {}
    layers = ("× √784", "× √50", "× √50", "× √50")
    table = Table(
        "start", "seed", *(f"layer {k + 1} {unit}" for k, unit in enumerate(layers)), "dev loss", "test accuracy"
    )
    for start in STARTS:
        for seed in SEEDS:
            history = run(start, seed)
            numbers[f"{start}, seed {seed}"] = [
                {tag: row[tag] for tag in ("scale", "loss/dev", "metric/test_accuracy")} for row in history
            ]
            first, last = history[0], history[-1]
            scales = [f"{s * n**0.5:.2f}" for s, n in zip(last["scale"][::2], (784, 50, 50, 50), strict=True)]
            losses = f"{first['loss/dev']:.3f} → {last['loss/dev']:.3f}"
            table.add_row(str(start), str(seed), *scales, losses, f"{last['metric/test_accuracy']:.3f}")
            save("init_scale", numbers)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
