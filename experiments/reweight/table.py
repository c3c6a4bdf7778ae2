"""The table of README.md: weights of rare classes, given, searched and learned, over five draws.

python -m experiments.reweight.table [DRAW …]    # some draws only, beside those that are in numbers.json
"""

import statistics
import sys
import time
import warnings
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.cpu import CPUClock, TPEUntil
from experiments.numbers import load, save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.callback.base import Result
from hypergrad.data.selection import long_tailed
from hypergrad.model.network import softmax_regression
from hypergrad.problem.supervised.supervised import on_splits
from hypergrad.training.training import Training

SEEDS, OUTER_STEPS, L2, IMBALANCE, NUM_RARE = range(5), 25, 1e-3, 100, 3
PENALTIES = (3e-4, 1e-3, 3e-3, 1e-2)
SIZES = {"train": 10_000, "dev": 500, "test": 10_000}
ESTIMATOR = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-2), inner_steps=200, inner_tol=1e-3, error_bar=False)
OPTIMIZER = partial(torch.optim.Adam, lr=0.3)


def drawn(seed: int) -> tuple[hg.Splits, torch.Tensor]:
    """Fashion-MNIST with long-tailed train classes, and the classes from the most common to the rarest."""
    data = hg.idx_images(train=SIZES["train"], dev=SIZES["dev"], test=SIZES["test"], seed=seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    rank = order.argsort()
    ranked = hg.Splits(*(hg.Split(X, rank[y]) for X, y in data))
    return long_tailed(ranked, imbalance=IMBALANCE), order


def problem_of(data: hg.Splits, weights: hg.Effect) -> hg.Supervised:
    """Softmax regression with weights and an L2 penalty to tune."""
    return on_splits(
        data,
        model=softmax_regression(784, 10),
        loss=cross_entropy,
        hyperparameters={"weights": weights, "l2": hg.L2(init=L2)},
    )


def judged(problem: hg.Supervised, params: hg.Tensors, hparams: hg.Tensors) -> dict[str, float]:
    """Dev loss and test accuracy, of all ten classes and of the rarest and the most common three."""
    with torch.no_grad():
        right = problem.model(params, problem.X_test, None).argmax(1) == problem.y_test
        dev = problem.outer_loss(params, hparams, None).item()
    of_class = torch.stack([right[problem.y_test == k].double().mean() for k in range(10)])
    return {
        "dev": dev,
        "test": of_class.mean().item(),
        "rare": of_class[-NUM_RARE:].mean().item(),
        "common": of_class[:NUM_RARE].mean().item(),
    }


def fitted(problem: hg.Supervised, hparams: hg.Tensors) -> dict[str, float]:
    """The same after training at fixed hyperparameters."""
    w = Training(solver=hg.LBFGS(), steps=500, tol=1e-3).run(problem, hparams, problem.init_params()).params
    return judged(problem, w, hparams) | {"l2": hparams["l2"].item()}


def with_best_penalty(problem: hg.Supervised, weights: torch.Tensor) -> dict[str, float]:
    """At given class weights, with the penalty of a grid that has the lowest dev loss."""
    rows = [fitted(problem, {"weights": weights, "l2": weights.new_tensor(l2)}) for l2 in PENALTIES]
    return min(rows, key=lambda row: row["dev"])


def learned(problem: hg.Supervised) -> tuple[dict[str, Any], Result]:
    """Weights and penalty by descent, at the lowest dev loss."""
    clock = CPUClock()
    result = hg.fit(problem, ESTIMATOR, OPTIMIZER, OUTER_STEPS, progress=False, callbacks=[clock])
    row = judged(problem, result.best.params, result.best.hparams)
    path = {"path": [r["loss/dev"] for r in result.history], "test path": [r["loss/test"] for r in result.history]}
    return row | path | {"l2": result.best.hparams["l2"].item(), "cpu": clock.seconds[-1]}, result


def searched(problem: hg.Supervised, seed: int, cpu: float) -> dict[str, Any]:
    """Weights and penalty by TPE, within e^±4 of 1 and of the usual penalty, in as much CPU time as descent took."""
    begin = time.process_time()
    method = TPEUntil(width=4, seed=seed, deadline=begin + cpu)
    found = search(problem, ESTIMATOR, method, Budget(trials=10_000))
    row = judged(problem, found.best.params, found.best.hparams)
    spent = {"cpu": time.process_time() - begin, "trials": len(found.history)}
    return row | spent | {"l2": found.best.hparams["l2"].item()}


def on_dev_too(problem: hg.Supervised, hparams: hg.Tensors) -> dict[str, float]:
    """Trained on train and dev together, each class with the share of the loss that its weight gave it in train."""
    both, _ = problem.joined(hparams)
    assert isinstance(both, hg.Supervised)
    before, after = (p.y.bincount() / len(p.y) for p in (problem, both))
    return without_dev(fitted(both, hparams | {"weights": hparams["weights"] * before / after}))


def without_dev(row: dict[str, float]) -> dict[str, float]:
    """A row without the dev loss, for what is trained on dev."""
    return {key: value for key, value in row.items() if key != "dev"}


def measured(seed: int) -> dict[str, Any]:
    """The rows of a draw."""
    data, order = drawn(seed)
    problem = problem_of(data, hg.ClassWeights())
    counts = data.train.y.bincount()
    inverse = len(data.train.y) / (10 * counts)
    start = problem.init_hparams()
    rows: dict[str, Any] = {
        "equal weights, penalty 1e-3": fitted(problem, start),
        "equal weights": with_best_penalty(problem, start["weights"]),
        "inverse frequency": with_best_penalty(problem, inverse),
    }
    penalty = start["l2"].new_tensor(rows["inverse frequency"]["l2"])
    alone = problem_of(hg.Splits(data.dev, data.train, data.test), hg.ClassWeights())
    rows["dev alone"] = without_dev(fitted(alone, {"weights": start["weights"], "l2": penalty}))
    rows["learned, 10 classes"], result = learned(problem)
    rows["TPE, 10 classes"] = searched(problem, seed, rows["learned, 10 classes"]["cpu"])
    rows["learned, each example"], of_examples = learned(problem_of(data, hg.ExampleWeights()))
    rows["train and dev, inverse frequency"] = on_dev_too(problem, {"weights": inverse, "l2": penalty})
    rows["train and dev, learned for 10 classes"] = on_dev_too(problem, result.best.hparams)
    weights = of_examples.best.hparams["weights"]
    means = torch.stack([weights[data.train.y == k].mean() for k in range(10)])
    kept = {"inverse": inverse, "classes": result.best.hparams["weights"], "examples": means, "counts": counts}
    return {"rows": rows, "order": order.tolist(), "weights": {name: w.tolist() for name, w in kept.items()}}


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    warnings.simplefilter("ignore", hg.NotConvergedWarning)
    chosen = [int(seed) for seed in sys.argv[1:]]
    numbers: dict[str, Any] = load("reweight") if chosen else {}
    for seed in chosen or SEEDS:
        numbers[str(seed)] = measured(seed)
        print(seed, {name: row["test"] for name, row in numbers[str(seed)]["rows"].items()}, flush=True)
        save("reweight", numbers)
    show(numbers)


def show(numbers: dict[str, Any]) -> None:
    """Print mean and spread over the draws."""
    keys = ("dev", "test", "rare", "common", "l2", "cpu")
    table = Table("weights", "dev loss", "test accuracy", "rarest 3", "most common 3", "penalty", "CPU s")
    rows = [found["rows"] for found in numbers.values()]
    for name in rows[0]:
        cells = []
        for key in keys:
            values = [row[name][key] for row in rows if key in row[name]]
            form = ".1e" if key == "l2" else ".1f" if key == "cpu" else ".4f"
            spread = f" ± {statistics.stdev(values):.3f}" if values and key in keys[:4] else ""
            cells.append(f"{statistics.mean(values):{form}}{spread}" if values else "")
        table.add_row(name, *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
