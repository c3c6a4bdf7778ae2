"""The tables of README.md: cells found by hypergradients against random ones, as mixtures and as architectures.

python -m experiments.darts.table
"""

import random
import statistics
import time
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.numbers import save
from hypergrad.model.cell import OPERATIONS, Cell, mixed_cell
from hypergrad.training.training import Training

SEEDS, OUTER_STEPS, INNER_STEPS, TRAIN_STEPS, NUM_RANDOM = range(3), 25, 10, 200, 10
SOLVER = hg.Adam(lr=0.02)
CHANNELS = 6
ADAM = partial(torch.optim.Adam, lr=0.15)
KEYS = ("dev", "dev_accuracy", "test", "test_accuracy")
REFERENCE = "unrolled, 10 steps"
"""Whose time random search is given."""


def implicit(linsolve: hg.LinearSolver) -> hg.Implicit:
    """The implicit estimator on a network that is not trained to its end, where the Hessian is indefinite."""
    return hg.Implicit(
        solver=SOLVER,
        linsolve=linsolve,
        product=hg.GaussNewton(),
        damping=1e-2,
        inner_steps=INNER_STEPS,
        inner_tol=0.0,
        error_bar=False,
    )


ESTIMATORS: dict[str, hg.HypergradEstimator] = {
    "direct term alone": implicit(hg.Neumann(num_terms=1, scale=1e-12)),
    "one step of 0.02": implicit(hg.Neumann(num_terms=1, scale=0.02)),
    REFERENCE: hg.Unrolled(solver=SOLVER, inner_steps=INNER_STEPS),
    "implicit, CG, 10 products": implicit(hg.CG(max_iter=10, tol=1e-2)),
}
"""The first two are first- and second-order DARTS, with ξ = 0 and ξ = the learning rate."""


def problem_of(data: hg.Splits, cell: Cell, seed: int) -> hg.Supervised:
    """A cell to be trained, with its α as hyperparameter."""
    return hg.Supervised(
        model=cell,
        loss=cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"alpha": hg.Buffer(name="alpha")},
        batch_size=64,
        seed=seed,
    )


def trained(
    data: hg.Splits,
    edges: Sequence[Sequence[str]],
    alpha: torch.Tensor | None,
    seed: int,
    weights: int = 1000,
    steps: int = TRAIN_STEPS,
) -> dict[str, Any]:
    """The losses of a cell that is trained from new weights, as a mixture at α or with one operation for each edge."""
    torch.manual_seed(weights + seed)
    problem = problem_of(data, Cell(edges, channels=CHANNELS), seed)
    hparams = problem.init_hparams() if alpha is None else {"alpha": alpha}
    begin = time.process_time()
    w = Training(solver=SOLVER, steps=steps).run(problem, hparams, problem.init_params()).params
    outputs = problem.model(w | hparams, problem.X_dev, None)
    found = {name: float(value) for name, value in problem.metrics(w, hparams).items()}
    return {
        "edges": ", ".join(edge[0] for edge in edges) if len(edges[0]) == 1 else "mixture",
        "dev": problem.outer_loss(w, hparams, None).item(),
        "dev_accuracy": (outputs.argmax(1) == problem.y_dev).double().mean().item(),
        "test": found["test_loss"],
        "test_accuracy": found["test_accuracy"],
        "seconds": time.process_time() - begin,
    }


def searched(data: hg.Splits, estimator: hg.HypergradEstimator, seed: int) -> dict[str, Any]:
    """A search by gradient: its mixture and its architecture, both trained from new weights."""
    torch.manual_seed(seed)
    cell = mixed_cell(channels=CHANNELS)
    begin = time.process_time()
    result = hg.fit(problem_of(data, cell, seed), estimator, ADAM, OUTER_STEPS, progress=False)
    seconds, alpha = time.process_time() - begin, result.last.hparams["alpha"]
    shares = result.trajectory["alpha"].softmax(-1)
    return {
        "seconds": seconds,
        "mixture": trained(data, cell.names, alpha, seed),
        "architecture": trained(data, cell.strongest(alpha), None, seed),
        "shares": [[[round(share, 3) for share in edge] for edge in edges] for edges in shares.tolist()],
    }


def at_random(data: hg.Splits, seed: int) -> list[dict[str, Any]]:
    """Architectures with an operation drawn for each edge."""
    draw, names = random.Random(seed), [name for name in OPERATIONS if name != "zero"]
    return [trained(data, [[draw.choice(names)] for _ in range(3)], None, seed) for _ in range(NUM_RANDOM)]


def measured(seed: int) -> dict[str, Any]:
    """All rows of a seed."""
    data, names = hg.digits(seed=seed), mixed_cell().names
    found = {name: searched(data, estimator, seed) for name, estimator in ESTIMATORS.items()}
    shares = {name: one.pop("shares") for name, one in found.items()}
    pool = at_random(data, seed)
    count = round(found[REFERENCE]["seconds"] / statistics.mean(one["seconds"] for one in pool))
    return {
        "found": found,
        "shares": shares[REFERENCE] if seed == 0 else [],  # of the figure
        "uniform": trained(data, names, torch.zeros(3, len(OPERATIONS)), seed),
        "convolutions": trained(data, [["conv"]] * 3, None, seed),
        "random": {key: [one[key] for one in pool] for key in pool[0]},
        "random search": min(pool[: max(count, 1)], key=lambda one: one["dev"]) | {"trials": count},
    }


def rows_of(numbers: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The table: for each row what came out on each seed."""
    rows = {"mixture: uniform (start)": [found["uniform"] for found in numbers]}
    rows |= {f"mixture: {name}": [found["found"][name]["mixture"] for found in numbers] for name in ESTIMATORS}
    rows["architecture: mean of random ones"] = [
        {key: statistics.mean(found["random"][key]) for key in KEYS} for found in numbers
    ]
    rows["architecture: best of random search on dev"] = [found["random search"] for found in numbers]
    rows["architecture: convolutions only"] = [found["convolutions"] for found in numbers]
    return rows | {
        f"architecture: {name}": [found["found"][name]["architecture"] for found in numbers] for name in ESTIMATORS
    }


def show(numbers: list[dict[str, Any]]) -> None:
    """Print the tables."""
    title = f"mean and deviation over {len(numbers)} seeds"
    table = Table("", "dev loss", "dev accuracy", "test loss", "test accuracy", title=title)
    for name, found in rows_of(numbers).items():
        cells = []
        for key in KEYS:
            values = [one[key] for one in found]
            cells.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
        table.add_row(name, *cells)
    console = Console(width=150)
    console.print(table)
    for name in ESTIMATORS:
        runs = [found["found"][name] for found in numbers]
        beaten = [
            sum(dev > run["architecture"]["dev"] for dev in found["random"]["dev"])
            for found, run in zip(numbers, runs, strict=True)
        ]
        edges = "; ".join(run["architecture"]["edges"] for run in runs)
        seconds = statistics.mean(run["seconds"] for run in runs)
        console.print(f"{name}: {seconds:.1f} s of search, better on dev than {beaten} of {NUM_RANDOM}: {edges}")
    trials = [found["random search"]["trials"] for found in numbers]
    console.print(f"the search by {REFERENCE} takes the time of {trials} trainings; random search made {NUM_RANDOM}")


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    warnings.simplefilter("ignore")
    numbers = []
    for seed in SEEDS:
        numbers.append(measured(seed))
        save("darts", {"seeds": numbers})
        print(f"seed {seed}: {time.process_time():.0f} s", flush=True)
    show(numbers)


if __name__ == "__main__":
    main()
