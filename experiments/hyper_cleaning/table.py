"""The table of README.md: which labels are wrong, by six estimators, between oracle and baseline.

python -m experiments.hyper_cleaning.table [TRAIN DEV TEST]
"""

import sys
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.numbers import save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.solver.training import train

SEEDS, OUTER_STEPS, INNER_STEPS = range(2), 20, 50
SIZES = ("20000", "5000", "10000")
IMPLICIT = partial(hg.Implicit, solver=hg.LBFGS(), inner_steps=INNER_STEPS, inner_tol=1e-3, error_bar=False)
MOMENTUM = hg.Momentum(lr=0.1, momentum=0.9)
ESTIMATORS = {
    "CG": IMPLICIT(linsolve=hg.CG(tol=1e-2)),
    "Neumann, 20 terms": IMPLICIT(linsolve=hg.Neumann(num_terms=20)),
    "Nyström, rank 20": IMPLICIT(linsolve=hg.Nystrom(rank=20)),
    "one step (T1–T2)": IMPLICIT(linsolve=hg.Neumann(num_terms=0)),
    "unrolled, 50 steps": hg.Unrolled(solver=MOMENTUM, inner_steps=INNER_STEPS),
    "truncated to 10 of 50": hg.Unrolled(solver=MOMENTUM, inner_steps=INNER_STEPS, horizon=10),
}
OPTIMIZER = partial(torch.optim.Adam, lr=0.5)


def fitted(problem: hg.InnerProblem, hparams: hg.Tensors) -> dict[str, float]:
    """Dev loss and test accuracy after training to convergence at fixed hyperparameters."""
    w = train(problem, hg.LBFGS(), hparams, problem.init_params(), max_steps=500, tol=1e-3).params
    return {
        "dev": problem.outer_loss(w, hparams, None).item(),
        "test": float(problem.metrics(w, hparams)["test_accuracy"]),
    }


def references(problem: hg.HyperCleaning) -> dict[str, dict[str, float]]:
    """What is trained without weights to learn: on the right labels only, on all of them, on dev alone."""
    right = (~problem.is_wrong).to(problem.X.dtype)
    both, weights = problem.joined({"weights": torch.zeros_like(right)})
    # The mean over both parts, of which only dev counts.
    weights["weights"][len(right) :] = len(weights["weights"]) / len(problem.y_dev)
    return {
        "oracle": fitted(problem, {"weights": right}),
        "baseline": fitted(problem, {"weights": torch.ones_like(right)}),
        "dev alone": fitted(both, weights),
    }


def penalty_by_tpe(problem: hg.HyperCleaning, data: hg.Splits, gradients: int) -> dict[str, float]:
    """The baseline with its penalty chosen by TPE, for as many gradients as a run took."""
    tuned = hg.Supervised(
        model=problem.model.module,
        loss=torch.nn.functional.cross_entropy,
        train=(problem.X, problem.y),
        dev=data.dev,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=problem.l2)},
    )
    best = search(tuned, IMPLICIT(linsolve=hg.CG()), TPE(), Budget(gradients=gradients, trials=100)).best
    return {"dev": best.outer_loss, "test": best.metrics["test_accuracy"], "l2": best.hparams["l2"].item()}


def run(problem: hg.HyperCleaning, estimator: hg.HypergradEstimator) -> list[dict[str, float]]:
    """The history of a run."""
    trainer = hg.Trainer(problem=problem, estimator=estimator, optimizer=OPTIMIZER, outer_steps=OUTER_STEPS)
    return trainer.fit().history


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    sizes = dict(zip(("train", "dev", "test"), map(int, sys.argv[1:] or SIZES), strict=True))
    numbers: dict[str, Any] = {}
    for seed in SEEDS:
        data = hg.idx_images(seed=seed, **sizes)
        problem = hg.HyperCleaning(data, seed=seed)
        found: dict[str, Any] = {"references": references(problem), "runs": {}}
        # The comparison of estimators is made on the first seed only.
        for name in list(ESTIMATORS)[: None if seed == 0 else 1]:
            found["runs"][name] = run(problem, ESTIMATORS[name])
            save("hyper_cleaning", numbers | {str(seed): found})
        last = found["runs"]["CG"][-1]
        gradients = int(last["run/gradients"] + 2 * last["run/products"])
        found["references"]["baseline, penalty by TPE"] = penalty_by_tpe(problem, data, gradients)
        numbers[str(seed)] = found
        save("hyper_cleaning", numbers)
    show(numbers)


def show(numbers: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("seed", "row", "dev loss", "test accuracy", "gap closed", "F1", "s")
    for seed, found in numbers.items():
        low, high = (found["references"][name]["test"] for name in ("baseline", "oracle"))
        for name, row in found["references"].items():
            table.add_row(seed, name, f"{row['dev']:.4f}", f"{row['test']:.4f}", "", "", "")
        for name, history in found["runs"].items():
            last = history[-1]
            test = last["metric/test_accuracy"]
            closed = f"{100 * (test - low) / (high - low):.0f} %"
            row = (f"{last['loss/dev']:.4f}", f"{test:.4f}", closed, f"{last['metric/f1']:.3f}")
            table.add_row(seed, name, *row, f"{last['run/seconds']:.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
