"""The table of README.md: ten learned images against ten real ones, over five splits.

python -m experiments.distillation.table
"""

import statistics
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.numbers import save
from hypergrad.training.training import Training

SEEDS, OUTER_STEPS, INNER_STEPS = range(5), 150, 50
SOLVER = hg.Momentum(lr=0.02, momentum=0.9)
OPTIMIZER = partial(torch.optim.Adam, lr=0.03)


def random_images(data: hg.Splits, seed: int) -> torch.Tensor:
    """One real train image of each class."""
    order = torch.randperm(len(data.train.y), generator=torch.Generator().manual_seed(seed))
    X, y = data.train.X[order], data.train.y[order]
    return torch.stack([X[y == k][0] for k in range(10)])


def class_means(data: hg.Splits) -> torch.Tensor:
    """The mean train image of each class."""
    return torch.stack([data.train.X[data.train.y == k].mean(0) for k in range(10)])


def judged(problem: hg.Distillation, images: torch.Tensor) -> dict[str, float]:
    """The losses after training on these images."""
    hparams = {"images": images}
    w = Training(solver=SOLVER, steps=INNER_STEPS).run(problem, hparams, problem.init_params()).params
    found = {name: float(value) for name, value in problem.metrics(w, hparams).items()}
    return found | {"train_loss": problem.outer_loss(w, hparams, None).item()}


def on_all(data: hg.Splits) -> dict[str, float]:
    """Softmax regression on the whole train part, with the penalty 1e-3, to convergence."""
    problem = hg.HyperCleaning(data, noise=2 / len(data.train.y), l2=1e-3)
    problem.y = data.train.y
    hparams = {"weights": torch.ones(len(data.train.y))}
    w = Training(solver=hg.LBFGS(), steps=300, tol=1e-3).run(problem, hparams, problem.init_params()).params
    return {"test_accuracy": float(problem.metrics(w, hparams)["test_accuracy"])}


def measured(seed: int) -> dict[str, Any]:
    """The rows of a split, the images and the history of the run."""
    data = hg.mnist5k(seed=seed)
    problem = hg.Distillation(data, seed=seed)
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=INNER_STEPS)
    trainer = hg.Trainer(
        problem=problem, estimator=estimator, optimizer=OPTIMIZER, outer_steps=OUTER_STEPS, warm_start=False
    )
    result = trainer.fit()
    rows = {
        "noise, where learning starts": judged(problem, problem.first),
        "random real images": judged(problem, random_images(data, seed)),
        "class means": judged(problem, class_means(data)),
        "learned images": judged(problem, result.last.hparams["images"]),
        "all of train": on_all(data),
    }
    images = {"learned": result.last.hparams["images"], "real": random_images(data, seed)} if seed == 0 else {}
    return {
        "rows": rows,
        "accuracy": [row["metric/test_accuracy"] for row in result.history],
        "images": {name: [[round(x, 2) for x in image] for image in rows.tolist()] for name, rows in images.items()},
    }


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    numbers: dict[str, Any] = {}
    for seed in SEEDS:
        numbers[str(seed)] = measured(seed)
        print(seed, numbers[str(seed)]["rows"], flush=True)
        save("distillation", numbers)
    table = Table("trained on", "test accuracy", "spread", "dev accuracy")
    for name in numbers["0"]["rows"]:
        test, dev = (
            [found["rows"][name].get(key) for found in numbers.values()] for key in ("test_accuracy", "dev_accuracy")
        )
        table.add_row(
            name,
            f"{statistics.mean(test):.4f}",
            f"{statistics.stdev(test):.4f}",
            "" if None in dev else f"{statistics.mean(dev):.4f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
