"""The tables of README.md: what the implicit meta-gradient depends on, what it takes, and what it learns.

python -m experiments.imaml.table
"""

from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.imaml.live_bytes import LiveBytes
from experiments.maml.setting import SEEDS, Setting, waves
from experiments.maml.table import show
from experiments.numbers import save
from hypergrad.core.autodiff import flatten

PROXIMITY = 3.0
WAYS: dict[str, tuple[hg.InnerSolver, int]] = {
    "L-BFGS": (hg.LBFGS(), 2000),
    "Newton": (hg.Newton(), 200),
    "momentum": (hg.Momentum(lr=0.01, momentum=0.9), 3000),
    "gradient descent": (hg.GradientDescent(lr=0.02), 5000),
}
STEPS = (10, 100, 1000)


def implicit(solver: hg.InnerSolver, steps: int, tol: float) -> hg.Implicit:
    """Training and adjoint system both to a relative `tol`."""
    linsolve = hg.CG(tol=tol, max_iter=1000)
    return hg.Implicit(solver=solver, linsolve=linsolve, inner_steps=steps, inner_tol=tol, error_bar=False)


def paths(setting: Setting, proximity: float, names: list[str]) -> dict[str, dict[str, Any]]:
    """The meta-gradient at the random start after several ways to the optimum, against that of the first one."""
    problem = setting.problem(0, tasks=5, proximity=proximity)
    start, rows, truth = problem.init_hparams(), dict[str, dict[str, Any]](), torch.empty(0)
    for name in names:
        found = implicit(*WAYS[name], tol=1e-8).estimate(problem, start, problem.init_params())
        grad = flatten(found.grad)
        truth = grad if len(truth) == 0 else truth
        keys = ("inner_steps", "inner_status", "num_matvecs", "adjoint_residual")
        rows[name] = {key: found.stats[key] for key in keys}
        rows[name] |= {"dev loss": found.outer_loss, "difference": ((grad - truth).norm() / truth.norm()).item()}
    return rows


def memory(setting: Setting) -> dict[str, list[float]]:
    """Megabytes of tensors that one meta-gradient holds at most, by the number of inner steps."""
    problem, solver = setting.problem(0, tasks=5, proximity=PROXIMITY), hg.GradientDescent(lr=0.01)
    cg = hg.CG(tol=0.1)
    estimators = {
        # damped, since ten steps do not end where the Hessian is positive definite
        "implicit": lambda T: hg.Implicit(
            solver=solver, linsolve=cg, inner_steps=T, inner_tol=0.0, damping=10.0, error_bar=False
        ),
        "unrolled, graphs": lambda T: hg.Unrolled(solver=solver, inner_steps=T),
        "unrolled, checkpoints": lambda T: hg.Unrolled(solver=solver, inner_steps=T, tape=hg.Checkpoint()),
    }
    found: dict[str, list[float]] = {}
    for name, make in estimators.items():
        for steps in STEPS:
            with LiveBytes() as count:
                make(steps).estimate(problem, problem.init_hparams(), problem.init_params())
            found.setdefault(name, []).append(count.peak / 1e6)
    return found


def rows_of(setting: Setting, proximity: float, seed: int) -> dict[str, dict[str, Any]]:
    """The random start and the learned one, each judged at the optima of the proximal problem."""
    solver, tol = hg.LBFGS(), 1e-6
    result = setting.learned(seed, implicit(solver, 2000, tol), proximity=proximity)
    starts = {"random start": setting.problem(seed).init_hparams(), "implicit MAML": result.last.hparams}
    rows: dict[str, dict[str, Any]] = {
        name: setting.judged(seed, start, solver, 2000, proximity=proximity, tol=tol) for name, start in starts.items()
    }
    rows["implicit MAML"] |= {"seconds": result.last.seconds, "dev": [row["loss/dev"] for row in result.history]}
    return rows


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    numbers: dict[str, Any] = {
        "paths": {
            f"ρ = {PROXIMITY:g}": paths(waves(), PROXIMITY, list(WAYS)),
            "ρ = 1": paths(waves(), 1.0, ["L-BFGS", "Newton"]),
        },
        "memory": memory(waves()),
    }
    save("imaml", numbers)
    for title, rows in numbers["paths"].items():
        table = Table("", *next(iter(rows.values())), title=title)
        for name, row in rows.items():
            table.add_row(name, *(f"{x:.6g}" if isinstance(x, float) else str(x) for x in row.values()))
        Console(width=160).print(table)
    table = Table("MB", *map(str, STEPS), title="inner steps")
    for name, megabytes in numbers["memory"].items():
        table.add_row(name, *(f"{x:.3g}" for x in megabytes))
    Console(width=160).print(table)
    setting = replace(waves(), outer_steps=30, outer_lr=0.01, test_tasks=100)
    rows = numbers.setdefault("learned", {})
    for seed in SEEDS:
        for row, content in rows_of(setting, PROXIMITY, seed).items():
            rows.setdefault(row, []).append(content)
        save("imaml", numbers)
    show("sine waves", rows)


if __name__ == "__main__":
    main()
