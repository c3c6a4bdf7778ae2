"""The tables of README.md: a penalty for each weight, from 7,840 to a million, what a step costs and what it wins.

python -m experiments.weight_decay.table
"""

import statistics
import time
import warnings
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.numbers import save
from experiments.weight_decay.cost import HIDDEN, MOMENTUM, NEUMANN, PRODUCTS, growth, network
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Callback, Record
from hypergrad.core.cost import PRODUCT
from hypergrad.training.training import Training

SEEDS, TUNED = range(3), (0, 40, 1300)
EXAMPLES, GUIDE = 1000, 500
OUTER_STEPS, TRIAL_STEPS, LAST_STEPS, STRIDE = 25, 100, 400, 10
DEFAULT = 1e-3
ADAM = partial(torch.optim.Adam, lr=0.3)
NEUMANN_STEP = hg.Implicit(
    solver=MOMENTUM,
    linsolve=NEUMANN,
    product=hg.GaussNewton(),
    inner_steps=STRIDE,
    inner_tol=0,
    error_bar=False,
)


class Parts(NamedTuple):
    """The problem that is tuned on one part of dev, and the other part, which says when to stop."""

    problem: hg.Supervised
    stop: hg.Split

    def stop_loss(self, params: hg.Tensors) -> float:
        """The loss on the part of dev that no hyperparameter has seen."""
        with torch.no_grad():
            return cross_entropy(self.problem.model(params, self.stop.X, None), self.stop.y).item()


def parts_of(seed: int, hidden: int, per: str) -> Parts:
    """Fashion-MNIST: 1000 train images, 500 dev images that guide λ, 500 that say when to stop, 10,000 test images."""
    data = hg.idx_images(seed=seed, train=EXAMPLES, dev=2 * GUIDE)
    guide, stop = (hg.Split(*part) for part in zip(*(x.split(GUIDE) for x in data.dev), strict=True))
    problem = hg.Supervised(
        model=network(hidden, seed),
        loss=cross_entropy,
        train=data.train,
        dev=guide,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=DEFAULT, per=per)},
    )
    return Parts(problem, stop)


class EarlyStopping(Callback):
    """Keeps the record of the lowest loss on the part of dev that λ has not seen."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.lowest = parts, float("inf")
        self.path: dict[str, list[float]] = {"dev": [], "stop": [], "test": []}

    def on_step(self, record: Record) -> None:
        loss = self.parts.stop_loss(record.params)
        for name, x in zip(self.path, (record.outer_loss, loss, record.metrics["test_loss"]), strict=True):
            self.path[name].append(round(x, 4))
        if loss < self.lowest:
            self.lowest, self.best = loss, record


def judged(parts: Parts, hparams: hg.Tensors) -> dict[str, float]:
    """The losses at λ after a training from scratch, stopped where the loss on the stopping part is lowest."""
    problem, params = parts.problem, parts.problem.init_params()
    lowest, found, at = float("inf"), params, 0
    for steps in range(STRIDE, LAST_STEPS + 1, STRIDE):
        params = Training(solver=MOMENTUM, steps=STRIDE).run(problem, hparams, params).params
        loss = parts.stop_loss(params)
        if loss < lowest:
            lowest, found, at = loss, params, steps
    metrics = {name: float(x) for name, x in problem.metrics(found, hparams).items()}
    dev = problem.outer_loss(found, hparams, None).item()
    return {
        "dev": dev,
        "stop": lowest,
        "test": metrics["test_loss"],
        "accuracy": metrics["test_accuracy"],
        "steps": at,
        "train": problem.inner_loss(found, {"l2": torch.zeros_like(hparams["l2"])}, None).item(),
    }


def tuned(seed: int, hidden: int) -> dict[str, Any]:
    """The results of one penalty by TPE and one per weight by hypergradients, with the same number of gradients."""
    begin = time.process_time()
    parts = parts_of(seed, hidden, "weight")
    stopping = EarlyStopping(parts)
    run = hg.fit(parts.problem, NEUMANN_STEP, ADAM, OUTER_STEPS, progress=False, callbacks=[stopping])
    spent, seconds = run.last.num_gradients + PRODUCT * run.last.num_matvecs, time.process_time() - begin
    single = parts_of(seed, hidden, "all")
    trials = hg.Unrolled(solver=MOMENTUM, inner_steps=TRIAL_STEPS)
    begin = time.process_time()
    tpe = search(single.problem, trials, TPE(width=5.0, seed=seed), Budget(gradients=spent))
    rows = {
        f"{DEFAULT:g} for all, the start": judged(single, single.problem.init_hparams()),
        "one, by TPE": judged(single, tpe.best.hparams)
        | {"l2": tpe.best.hparams["l2"].item(), "trials": len(tpe.history), "cpu": time.process_time() - begin},
        "one per weight": judged(parts, stopping.best.hparams)
        | {"outer step": stopping.best.step, "cpu": seconds, "gradients": spent},
        "one per weight, not stopped early": judged(parts, run.last.hparams),
    }
    found = {"seed": seed, "hyperparameters": run.hparams["l2"].numel(), "rows": rows, "path": stopping.path}
    if hidden == 0 and seed == 0:
        found["log10_penalties"] = [round(x, 2) for x in stopping.best.hparams["l2"].log10().tolist()]
    return found


def show(numbers: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=150)
    growing = numbers["growth"]
    cost = Table("hyperparameters", *(f"{row['hyperparameters']:,}" for row in growing))
    for key in list(growing[0])[1:]:
        cost.add_row(key, *(f"{row[key]:.2f}" for row in growing))
    table = Table("hyperparameters", "penalties", "dev", "stopping part", "test", "test accuracy", "train steps")
    for size in {row["hyperparameters"]: None for row in numbers["tuned"]}:
        runs = [row["rows"] for row in numbers["tuned"] if row["hyperparameters"] == size]
        for name in runs[0]:
            columns = [[run[name][key] for run in runs] for key in ("dev", "stop", "test", "accuracy", "steps")]
            cells = [f"{statistics.mean(x):.4f} ± {statistics.stdev(x):.4f}" for x in columns[:4]]
            table.add_row(f"{size:,}", name, *cells, str([int(x) for x in columns[4]]))
    console.print(cost, table)


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    warnings.simplefilter("ignore")
    numbers: dict[str, Any] = {"products": list(PRODUCTS), "growth": [], "tuned": []}
    for hidden in HIDDEN:
        numbers["growth"].append(growth(hidden))
        print(numbers["growth"][-1], flush=True)
        save("weight_decay", numbers)
    for hidden in TUNED:
        for seed in SEEDS:
            numbers["tuned"].append(tuned(seed, hidden))
            print(f"{time.process_time():.0f} CPU s", numbers["tuned"][-1]["rows"], flush=True)
            save("weight_decay", numbers)
    show(numbers)


if __name__ == "__main__":
    main()
