"""The table of README.md: which labels are wrong, by seven estimators, between oracle and baseline.

python -m experiments.hyper_cleaning.table [TRAIN DEV TEST]
"""

import statistics
import sys
import time
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.cpu import CPUClock, TPEUntil
from experiments.numbers import save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.training.training import Training

SEEDS, OUTER_STEPS, INNER_STEPS, L2 = range(3), 20, 50, 1e-3
BATCH_SIZE, BATCHES = 1000, 60
SIZES = ("20000", "5000", "10000")
IMPLICIT = partial(hg.Implicit, solver=hg.LBFGS(), inner_steps=INNER_STEPS, inner_tol=1e-2, error_bar=False)
MOMENTUM = hg.Momentum(lr=0.1, momentum=0.9)
ESTIMATORS = {
    "CG": IMPLICIT(linsolve=hg.CG(tol=1e-2)),
    "Neumann, 20 terms": IMPLICIT(linsolve=hg.Neumann(num_terms=20)),
    "Nyström, rank 20": IMPLICIT(linsolve=hg.Nystrom(rank=20)),
    "one step (T1–T2)": IMPLICIT(linsolve=hg.Neumann(num_terms=0)),
    "unrolled, 50 steps": hg.Unrolled(solver=MOMENTUM, inner_steps=INNER_STEPS),
    "truncated to 10 of 50": hg.Unrolled(solver=MOMENTUM, inner_steps=INNER_STEPS, horizon=10),
    "unrolled, 60 mini-batches": hg.Unrolled(solver=MOMENTUM, inner_steps=BATCHES),
}
OPTIMIZER = partial(torch.optim.Adam, lr=0.5)
KEPT = {
    "loss/dev": "dev",
    "metric/test_accuracy": "test",
    "metric/f1": "f1",
    "metric/precision": "precision",
    "metric/recall": "recall",
    "run/gradients": "gradients",
    "run/products": "products",
}


def fitted(problem: hg.InnerProblem, hparams: hg.Tensors) -> dict[str, float]:
    """Dev loss and test accuracy after training to convergence at fixed hyperparameters."""
    begin = time.process_time()
    w = Training(solver=hg.LBFGS(), steps=500, tol=1e-3).run(problem, hparams, problem.init_params()).params
    return {
        "dev": problem.outer_loss(w, hparams, None).item(),
        "test": float(problem.metrics(w, hparams)["test_accuracy"]),
        "cpu": time.process_time() - begin,
    }


def on_dev_too(both: hg.InnerProblem, hparams: hg.Tensors) -> dict[str, float]:
    """The same of a problem on train and dev together, for which the dev loss says nothing."""
    return {name: value for name, value in fitted(both, hparams).items() if name != "dev"}


def references(problem: hg.HyperCleaning) -> dict[str, dict[str, float]]:
    """Trainings without learned weights: on the right labels only, on all labels, and with dev or on dev alone."""
    right = (~problem.is_wrong).to(problem.X.dtype)
    both, weights = problem.joined({"weights": torch.ones_like(right)})
    alone = weights["weights"].clone()
    alone[: len(right)] = 0
    # The mean over both parts, of which only dev counts.
    alone *= len(alone) / len(problem.y_dev)
    return {
        "oracle": fitted(problem, {"weights": right}),
        "baseline": fitted(problem, {"weights": torch.ones_like(right)}),
        "dev alone": on_dev_too(both, {"weights": alone}),
        "baseline and dev": on_dev_too(both, weights),
    }


def penalty_by_tpe(problem: hg.HyperCleaning, data: hg.Splits, cpu: float) -> dict[str, float]:
    """The baseline with its penalty chosen by TPE, within e^±4 of the usual one, in as much CPU time as a run took."""
    begin = time.process_time()
    tuned = hg.Supervised(
        model=problem.model.module,
        loss=torch.nn.functional.cross_entropy,
        train=(problem.X, problem.y),
        dev=data.dev,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=problem.l2)},
    )
    estimator = IMPLICIT(linsolve=hg.CG(), inner_steps=200)
    found = search(tuned, estimator, TPEUntil(width=4, deadline=begin + cpu), Budget(trials=1000))
    best = found.best
    return {
        "dev": best.outer_loss,
        "test": best.metrics["test_accuracy"],
        "l2": best.hparams["l2"].item(),
        "cpu": time.process_time() - begin,
        "trials": len(found.history),
        "gradients": float(found.last.num_gradients),
    }


def run(problem: hg.HyperCleaning, estimator: hg.HypergradEstimator) -> tuple[dict[str, list[float]], hg.Tensors]:
    """The results of the outer steps, with the CPU time until then, and the last weights."""
    clock = CPUClock()
    trainer = hg.Trainer(
        problem=problem, estimator=estimator, optimizer=OPTIMIZER, outer_steps=OUTER_STEPS, callbacks=[clock]
    )
    result = trainer.fit()
    columns = {name: [row[tag] for row in result.history] for tag, name in KEPT.items()}
    return columns | {"cpu": clock.seconds}, result.last.hparams


def last(history: dict[str, list[float]]) -> dict[str, float]:
    """The last outer step."""
    return {name: values[-1] for name, values in history.items()}


def measured(seed: int, sizes: dict[str, int]) -> dict[str, Any]:
    """The references and the runs of a seed."""
    data = hg.idx_images(train=sizes["train"], dev=sizes["dev"], test=sizes["test"], seed=seed)
    problem = hg.HyperCleaning(data, l2=L2, seed=seed)
    batch_size = min(BATCH_SIZE, sizes["train"] // 2)
    in_batches = hg.HyperCleaning(data, l2=L2, batch_size=batch_size, seed=seed)
    found: dict[str, Any] = {"references": references(problem), "runs": {}, "batch": batch_size / sizes["train"]}
    print(seed, found["references"], flush=True)
    for name, estimator in ESTIMATORS.items():
        history, weights = run(in_batches if "mini-batches" in name else problem, estimator)
        found["runs"][name] = history
        if name == "CG":
            found["references"]["CG, then with dev"] = on_dev_too(*problem.joined(weights))
        print(seed, name, last(history), flush=True)
    cpu = last(found["runs"]["CG"])["cpu"]
    found["references"]["baseline, penalty by TPE"] = penalty_by_tpe(problem, data, cpu)
    return found


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    sizes: dict[str, int] = dict(zip(("train", "dev", "test"), map(int, sys.argv[1:] or SIZES), strict=True))
    numbers: dict[str, Any] = {}
    for seed in SEEDS:
        numbers[str(seed)] = measured(seed, sizes)
        save("hyper_cleaning", numbers)
    show(numbers)


def closed(found: dict[str, Any], test: float) -> float:
    """The share of the gap between oracle and baseline that a test accuracy closes, in percent."""
    low, high = (found["references"][name]["test"] for name in ("baseline", "oracle"))
    return 100 * (test - low) / (high - low)


COLUMNS = {"dev": 4, "test": 4, "closed": 0, "f1": 3, "cpu": 0, "gradients": 0, "products": 0}
"""What a row shows, and with how many digits."""


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def show(numbers: dict[str, Any]) -> None:
    """Print the means and deviations over the seeds, and the share of the gap on each."""
    table = Table("row", *COLUMNS, "closed on each")
    seeds = list(numbers.values())
    rows = [found["references"] | {name: last(history) for name, history in found["runs"].items()} for found in seeds]
    for name in rows[0]:
        each = [
            row[name] | {"closed": closed(found, row[name]["test"])} for found, row in zip(seeds, rows, strict=True)
        ]
        cells = [spread([row[key] for row in each], n) if key in each[0] else "" for key, n in COLUMNS.items()]
        table.add_row(name, *cells, ", ".join(f"{row['closed']:.0f}" for row in each))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
