"""The table of README.md: 800 learning rates by descent against the best fixed one by TPE.

python -m experiments.lr_schedule.table
"""

from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.problem.network import perceptron

STEPS, OUTER_STEPS, START, TRIALS = 100, 50, 0.05, 60
SOLVER = hg.Momentum(lr="rate", momentum=0.9)
SIZES = {"train": 10_000, "dev": 2000, "test": 10_000}


def problem_of(shape: tuple[int, ...], seed: int = 0) -> hg.Supervised:
    """A 784-50-50-50-10 network on Fashion-MNIST with learning rates of this shape."""
    data = hg.idx_images(seed=seed, **SIZES)
    torch.manual_seed(seed)
    rate = hg.Hyperparameter(START, shape=shape, constraint=hg.positive)
    return hg.Supervised(
        model=perceptron(784, 10, (50, 50, 50)),
        loss=cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"rate": rate},
        batch_size=200,
        seed=seed,
    )


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    reversible = hg.Unrolled(solver=SOLVER, tape=hg.Reversible(), inner_steps=STEPS)
    optimizer = partial(torch.optim.Adam, lr=0.04)
    fixed = search(problem_of(()), reversible, TPE(width=4), Budget(trials=TRIALS))
    numbers: dict[str, Any] = {"default": fixed.first.scalars(), "fixed": fixed.best.scalars(), "tpe": fixed.history}
    for name, result in {"default": fixed.first, "best fixed of TPE": fixed.best}.items():
        print(name, result.scalars(), flush=True)
    trainer = hg.Trainer(
        problem=problem_of((STEPS, 8)),
        estimator=reversible,
        optimizer=optimizer,
        outer_steps=OUTER_STEPS,
        warm_start=False,
    )
    result = trainer.fit()
    numbers |= {"history": result.history, "rates": result.hparams["rate"].tolist()}
    save("lr_schedule", numbers)
    print("schedule", result.history[-1])


if __name__ == "__main__":
    main()
