"""Which labels are wrong, with a small convolutional network: test accuracy of each estimator over CPU seconds.

python -m experiments.hyper_cleaning.network [TRAIN DEV TEST] [SECONDS]
"""

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import hypergrad as hg
from experiments.cpu import CPUClock
from experiments.hyper_cleaning.network_table import show
from experiments.numbers import save
from experiments.single_loop.cleaning_references import small_cnn, trained_on_each
from hypergrad.callback.base import Record

SEEDS, L2, DAMPING = range(3), 1e-3, 1e-2
INNER_STEPS, BATCH_SIZE, SECONDS = 10, 250, 20.0
SIZES = (5000, 1000, 10_000)
LR = 0.5
MOMENTUM = hg.Momentum(lr=0.05, momentum=0.9)
IMPLICIT = partial(
    hg.Implicit,
    solver=MOMENTUM,
    inner_steps=INNER_STEPS,
    inner_tol=0.0,
    damping=DAMPING,
    product=hg.GaussNewton(),
    error_bar=False,
)


def cg(products: int, preconditioner: hg.Preconditioner | None = None) -> hg.Implicit:
    """So many iterations of CG."""
    return IMPLICIT(linsolve=hg.CG(max_iter=products, tol=0.0, preconditioner=preconditioner))


ESTIMATORS: dict[str, tuple[hg.HypergradEstimator, int]] = {
    "K-FAC": (IMPLICIT(linsolve=hg.KFAC(fisher="mc", refresh=10)), 20),
    "EK-FAC": (IMPLICIT(linsolve=hg.EKFAC(fisher="mc", refresh=10)), 20),
    "CG with K-FAC, 3 products": (cg(3, hg.KFAC(fisher="mc", refresh=10)), 10),
    "CG with EK-FAC, 3 products": (cg(3, hg.EKFAC(fisher="mc", refresh=10)), 10),
    "CG, 3 products": (cg(3), 10),
    "CG, 20 products": (cg(20), 4),
    "Neumann, 20 products": (IMPLICIT(linsolve=hg.Neumann(num_terms=20)), 2),
    "one step (T1–T2)": (IMPLICIT(linsolve=hg.Neumann(num_terms=0)), 20),
    "unrolled, 10 steps": (hg.Unrolled(solver=MOMENTUM, inner_steps=INNER_STEPS), 8),
}
"""By name, with the outer steps between two records."""
KEPT = {"step": "step", "loss/dev": "dev", "metric/test_accuracy": "test", "metric/f1": "f1"}


@dataclass
class Deadline(CPUClock):
    """Ends a run, as Ctrl-C does, at its first record after so many CPU seconds."""

    limit: float = SECONDS

    def on_step(self, record: Record) -> None:
        super().on_step(record)
        if self.seconds[-1] >= self.limit:
            raise KeyboardInterrupt


def run(
    problem: hg.HyperCleaning, estimator: hg.HypergradEstimator, record_every: int, seconds: float
) -> dict[str, list[float]]:
    """The records of a run, with the CPU time until then; that of the metrics counts."""
    clock = Deadline(limit=seconds)
    result = hg.Trainer(
        problem=problem,
        estimator=estimator,
        optimizer=partial(torch.optim.Adam, lr=LR),
        outer_steps=10_000,
        record_every=record_every,
        callbacks=[clock],
    ).fit(on_interrupt="return")
    return {name: [row[tag] for row in result.history] for tag, name in KEPT.items()} | {"cpu": clock.seconds}


def measured(seed: int, sizes: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """The references and the runs of a seed."""
    train, dev, test = sizes
    data = hg.idx_images(train=train, dev=dev, test=test, seed=seed)
    found: dict[str, Any] = {"references": trained_on_each(data, small_cnn, l2=L2, seed=seed), "runs": {}}
    print(seed, found["references"], flush=True)
    batch_size = min(BATCH_SIZE, train // 2)
    for name, (estimator, record_every) in ESTIMATORS.items():
        problem = hg.HyperCleaning(data, l2=L2, model=small_cnn(), batch_size=batch_size, seed=seed)
        history = found["runs"][name] = run(problem, estimator, record_every, seconds)
        print(seed, name, {key: values[-1] for key, values in history.items()}, flush=True)
    return found


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    sizes, seconds = SIZES, SECONDS
    if len(sys.argv) > 1:
        *given, seconds = map(float, sys.argv[1:])
        sizes = tuple(map(int, given))
    numbers: dict[str, Any] = {}
    for seed in SEEDS:
        numbers[str(seed)] = measured(seed, sizes, seconds)
        save("hyper_cleaning", numbers, "network")
    show(numbers)


if __name__ == "__main__":
    main()
