"""The tables of README.md: a penalty for each weight, from 7,840 to a million, and what an outer step costs.

python -m experiments.weight_decay.table
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.measure import Local, clocked, interleaved, ratios
from experiments.numbers import save
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE

SEEDS, TERMS = range(3), 10
HIDDEN = (0, 40, 130, 400, 1300)
EXAMPLES, OUTER_STEPS = 1000, 10
OPTIMIZER = partial(torch.optim.Adam, lr=0.3)
MOMENTUM = hg.Momentum(lr=0.02, momentum=0.9)
LINEAR = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-2), inner_steps=50, inner_tol=1e-3, error_bar=False)
NETWORK = hg.Implicit(
    solver=MOMENTUM,
    linsolve=hg.Neumann(num_terms=TERMS, scale=0.02, tol=0),
    product=hg.GaussNewton(),
    inner_steps=20,
    inner_tol=0,
    error_bar=False,
)


def network(hidden: int, seed: int = 0) -> nn.Module:
    """784-hidden-10 without biases; 784-10 where hidden is 0."""
    torch.manual_seed(seed)
    if hidden == 0:
        return nn.Linear(784, 10, bias=False)
    return nn.Sequential(nn.Linear(784, hidden, bias=False), nn.Tanh(), nn.Linear(hidden, 10, bias=False))


def problem_of(hidden: int, *, per: str = "weight", seed: int = 0, examples: int = EXAMPLES) -> hg.Supervised:
    """Fashion-MNIST with one penalty for each weight, or for all."""
    data = hg.idx_images(seed=seed, train=examples, dev=examples)
    return hg.Supervised(
        model=network(hidden, seed),
        loss=cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=1e-3, per=per)},
    )


def work(name: str) -> Any:
    """What is timed and weighed: "HIDDEN step", a gradient and an update, or "HIDDEN outer", the hypergradient."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    hidden, kind = name.split()
    problem = hg.Supervised(
        model=network(int(hidden)),
        loss=cross_entropy,
        train=(torch.randn(500, 784), torch.arange(500) % 10),  # read from no file, which would leave memory behind
        dev=(torch.randn(500, 784), torch.arange(500) % 10),
        hyperparameters={"l2": hg.L2(init=1e-3, per="weight")},
    )
    w, hparams = problem.init_params(), problem.init_hparams()
    if kind == "step":
        with torch.no_grad():
            state = MOMENTUM.start(problem, w, hparams)

        def step() -> torch.Tensor:
            with torch.no_grad():
                return next(iter(MOMENTUM.params(MOMENTUM.step(problem, state, hparams, 0)).values()))

        return step
    judged = hg.Implicit(
        solver=MOMENTUM, linsolve=NETWORK.linsolve, inner_steps=0, product=hg.GaussNewton(), error_bar=False
    )
    return lambda: judged.estimate(problem, hparams, w).grad["l2"]


def growth() -> list[dict[str, float]]:
    """Time and peak memory of a hypergradient, in plain training steps, against the number of hyperparameters."""
    rows = []
    for hidden in HIDDEN:
        names = [f"{hidden} step", f"{hidden} outer"]
        times = interleaved({name: clocked(work(name)) for name in names}, repeats=7)
        ratio, spread = ratios(times[names[1]], times[names[0]])
        memory = [Local.of(work, name).megabytes() for name in names]
        rows.append(
            {"hyperparameters": sum(p.numel() for p in network(hidden).parameters())}
            | {"time": ratio, "spread": spread, "step_mb": memory[0], "outer_mb": memory[1]}
        )
        print(rows[-1], flush=True)
    return rows


def tuned(seed: int) -> dict[str, Any]:
    """What 7,840 penalties come to, and what TPE makes of one penalty with as many gradients."""
    make = partial(problem_of, 0, seed=seed)
    result = hg.Trainer(problem=make(), estimator=LINEAR, optimizer=OPTIMIZER, outer_steps=OUTER_STEPS).fit()
    budget = Budget(gradients=result.last.num_gradients + 2 * result.last.num_matvecs, trials=100)
    single = replace(LINEAR, inner_steps=300)
    return {
        "hyperparameters": result.hparams["l2"].numel(),
        "first": result.history[0],
        "last": result.history[-1],
        "tpe": search(make(per="all"), single, TPE(width=5), budget).best.scalars(),
        "log10": result.hparams["l2"].log10(),
    }


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    numbers: dict[str, Any] = {"growth": growth(), "tuned": []}
    save("weight_decay", numbers)
    for seed in SEEDS:
        found = tuned(seed)
        penalties = found.pop("log10")
        if seed == 0:
            numbers["log10_penalties"] = [round(x, 2) for x in penalties.tolist()]
        numbers["tuned"].append({"seed": seed} | found)
        save("weight_decay", numbers)
    show(numbers)


def show(numbers: dict[str, Any]) -> None:
    """Print the tables."""
    cost = Table("hyperparameters", "time", "quartiles apart", "memory of a step", "memory of an outer step")
    for row in numbers["growth"]:
        cost.add_row(
            f"{row['hyperparameters']:,}",
            f"{row['time']:.1f}",
            f"{row['spread']:.1f}",
            f"{row['step_mb']:.0f} MB",
            f"{row['outer_mb']:.0f} MB",
        )
    table = Table("hyperparameters", "seed", "", "dev loss", "test loss", "test accuracy", "s")
    for row in numbers["tuned"]:
        for name in ("first", "tpe", "last"):
            at = row[name]
            table.add_row(
                f"{row['hyperparameters']:,}",
                str(row["seed"]),
                name,
                *(f"{at[tag]:.4f}" for tag in ("loss/dev", "loss/test", "metric/test_accuracy")),
                f"{at['run/seconds']:.0f}",
            )
    Console(width=110).print(cost, table)


if __name__ == "__main__":
    main()
