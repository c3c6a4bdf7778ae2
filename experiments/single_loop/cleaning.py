"""Data hyper-cleaning in one loop, a table of README.md: which method has which accuracy after how many CPU seconds.

python -m experiments.single_loop.cleaning linear|cnn [TRAIN DEV TEST]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import hypergrad as hg
from experiments.cpu import CPUClock
from experiments.hyper_cleaning import table as full_batch
from experiments.numbers import load, save
from experiments.single_loop.cleaning_references import small_cnn, trained_on_each
from experiments.single_loop.cleaning_table import show

SEEDS, L2, RECORD_EVERY = range(3), 1e-3, 50
ADAM, SGD = partial(torch.optim.Adam, lr=0.2), partial(torch.optim.SGD, lr=3e3)
SIZES = ("20000", "5000", "10000")
KEPT = {"step": "step", "loss/dev": "dev", "metric/test_accuracy": "test", "metric/f1": "f1"}


@dataclass(frozen=True)
class Contestant:
    """One run of a method.

    Attributes:
        estimator: of the hypergradient.
        outer_steps: of the run.
        optimizer: moves the logits of the weights.
        batch_size: examples of train in a step; None for all.
        dev_sample: examples of dev in an outer step; None for all.
        record_every: outer steps between two records.
        fixed_batches: whether all epochs have the same batches.
    """

    estimator: hg.HypergradEstimator
    outer_steps: int
    optimizer: Callable[[list[torch.Tensor]], torch.optim.Optimizer] = ADAM
    batch_size: int | None = 256
    dev_sample: int | None = 256
    record_every: int = RECORD_EVERY
    fixed_batches: bool = False


def single_loops(moves: int, batch_size: int, lr: float, adjoint_lr: float, momentum: float) -> dict[str, Contestant]:
    """The single-loop methods; their steps fall to a tenth by half a cosine."""
    falling = partial(hg.Cosine, steps=moves, end=0.1)
    solver = hg.Momentum(lr=falling(base=lr), momentum=momentum)
    joint: Any = {"solver": solver, "adjoint_lr": falling(base=adjoint_lr)}
    common: Any = {"outer_steps": moves, "batch_size": batch_size, "dev_sample": batch_size}
    soba = hg.SingleLoop(method=hg.SOBA(**joint))
    return {
        "SOBA": Contestant(soba, **common),
        "SOBA, λ by SGD": Contestant(soba, optimizer=SGD, **common),
        "MASOBA": Contestant(hg.SingleLoop(method=hg.MASOBA(**joint)), **common),
        "SABA": Contestant(hg.SingleLoop(method=hg.SABA(**joint)), fixed_batches=True, **common),
        "F2SA": Contestant(hg.SingleLoop(method=hg.F2SA(solver=solver, multiplier=1.0)), **common),
    }


CG = full_batch.ESTIMATORS["CG"]
CG_ON_BATCHES = hg.Implicit(
    solver=hg.Momentum(lr=0.02, momentum=0.9),
    inner_steps=20,
    linsolve=hg.CG(max_iter=10),
    product=hg.GaussNewton(),
    error_bar=False,
)
LINEAR = single_loops(1500, batch_size=256, lr=0.03, adjoint_lr=0.08, momentum=0.95)
CNN = single_loops(800, batch_size=128, lr=0.05, adjoint_lr=0.05, momentum=0.9)
CONTESTANTS = {
    "linear": {"CG": Contestant(CG, 8, full_batch.OPTIMIZER, None, None, 1), **LINEAR},
    "cnn": {
        "CG, on mini-batches": Contestant(CG_ON_BATCHES, 20, batch_size=500, dev_sample=500, record_every=2),
        "SOBA": CNN["SOBA"],
        "F2SA": CNN["F2SA"],
    },
}
"""By model and name."""


def model_of(name: str) -> nn.Module | None:
    """The network, or None for softmax regression."""
    return small_cnn() if name == "cnn" else None


def run(data: hg.Splits, contestant: Contestant, model: nn.Module | None, seed: int) -> dict[str, list[float]]:
    """The records of a run, with the CPU time until then; that of the metrics counts."""
    problem = hg.HyperCleaning(
        data,
        l2=L2,
        model=model,
        batch_size=contestant.batch_size,
        dev_sample=contestant.dev_sample,
        dev_batch_size=1000 if model else None,
        fixed_batches=contestant.fixed_batches,
        seed=seed,
    )
    clock = CPUClock()
    result = hg.Trainer(
        problem=problem,
        estimator=contestant.estimator,
        optimizer=contestant.optimizer,
        outer_steps=contestant.outer_steps,
        record_every=contestant.record_every,
        exact_every=contestant.record_every,
        callbacks=[clock],
    ).fit()
    return {name: [row[tag] for row in result.history] for tag, name in KEPT.items()} | {"cpu": clock.seconds}


def measured(name: str, seed: int, sizes: dict[str, int]) -> dict[str, Any]:
    """The references and the runs of a seed."""
    data = hg.idx_images(train=sizes["train"], dev=sizes["dev"], test=sizes["test"], seed=seed)
    if name == "cnn":
        references = trained_on_each(data, small_cnn, l2=L2, seed=seed)
    elif list(sizes.values()) == list(map(int, SIZES)):
        references = load("hyper_cleaning")[str(seed)]["references"]
    else:
        references = full_batch.references(hg.HyperCleaning(data, l2=L2, seed=seed))
    found: dict[str, Any] = {"references": references, "runs": {}}
    print(seed, references, flush=True)
    for each, contestant in CONTESTANTS[name].items():
        history = found["runs"][each] = run(data, contestant, model_of(name), seed)
        print(seed, each, {key: values[-1] for key, values in history.items()}, flush=True)
    return found


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    name, *given = sys.argv[1:]
    sizes: dict[str, int] = dict(zip(("train", "dev", "test"), map(int, given or SIZES), strict=True))
    for seed in SEEDS:
        found = measured(name, seed, sizes)
        try:
            numbers = load("single_loop", "cleaning")
        except FileNotFoundError:
            numbers = {}
        numbers.setdefault(name, {})[str(seed)] = found
        save("single_loop", numbers, "cleaning")
    show(name, load("single_loop", "cleaning")[name])


if __name__ == "__main__":
    main()
