"""The tables of README.md: how wrong unrolled and implicit hypergradients are, and what they say of it.

python -m experiments.unrolled_error.table
"""

import math
import warnings
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import hypergrad as hg
from experiments.numbers import save
from hypergrad.core.autodiff import central_difference, flatten
from hypergrad.training.training import Training

PENALTIES = (1.0, 0.1, 0.01)
STEPS = (2, 5, 10, 20, 40, 60, 80, 100, 200, 300, 500, 700, 1000, 2000, 3000, 4000)
CONDITIONS = tuple(10.0**k for k in range(1, 9))
DAMPINGS = tuple(10.0**k for k in range(-10, 2))


def off(found: hg.Tensors, truth: hg.Tensors) -> float:
    """‖found − truth‖ / ‖truth‖."""
    return ((flatten(found) - flatten(truth)).norm() / flatten(truth).norm()).item()


def spectrum(problem: hg.Ridge, l2: float) -> tuple[float, float]:
    """The smallest and largest eigenvalue μ and L of the Hessian of the inner loss."""
    values = 2 * (torch.linalg.eigvalsh(problem.X.T @ problem.X / len(problem.y)) + l2)
    return values[0].item(), values[-1].item()


def decay(seed: int, l2: float, steps: Sequence[int] = STEPS) -> dict:
    """Errors of both estimators after T steps of size 1/L, against both truths."""
    problem = hg.Ridge(hg.diabetes(seed=seed), l2=l2)
    mu, largest = spectrum(problem, l2)
    solver, hparams, start = hg.GradientDescent(lr=1 / largest), problem.init_hparams(), problem.init_params()
    limit, rows = problem.hypergradient(hparams), []
    for num_steps in steps:
        unrolled = hg.Unrolled(solver=solver, inner_steps=num_steps).estimate(problem, hparams, start).grad
        implicit = hg.Implicit(solver=solver, inner_steps=num_steps, inner_tol=0.0, linsolve=hg.CG(tol=1e-12))
        found = implicit.estimate(problem, hparams, start)

        def retrained(hp: hg.Tensors, num_steps: int = num_steps) -> Tensor:
            return problem.outer_loss(Training(solver=solver, steps=num_steps).run(problem, hp, start).params, hp, None)

        witness = {"l2": central_difference(retrained, hparams, {"l2": torch.tensor(1.0)}, step=1e-4 * l2)}
        bar = float(found.stats["error_estimate"]) / flatten(limit).norm().item()
        rows.append(
            [num_steps, off(unrolled, limit), off(found.grad, limit), bar]
            + [off(unrolled, witness), off(found.grad, witness)]
        )
    return {"l2": l2, "rate": 1 - mu / largest, "condition": largest / mu, "rows": rows}


def fitted_rate(rows: list) -> float:
    """The factor per step of error / T between the last two runs before rounding, for an error ∝ T r^T."""
    tail = [(t, math.log(error / t)) for t, error, *_ in rows if 1e-11 < error < 1e-2]
    (t0, e0), (t1, e1) = tail[-2], tail[-1]
    return math.exp((e1 - e0) / (t1 - t0))


def at_condition(condition: float, damping: float, max_iter: int) -> dict:
    """An implicit hypergradient at the solution of a quadratic, whose only errors are the solve's and the damping's."""
    problem = hg.Quadratic(size=50, condition=condition, curvature=1.0, penalty=1e-12)
    hparams = problem.init_hparams()
    estimator = hg.Implicit(inner_steps=0, linsolve=hg.CG(tol=1e-10, max_iter=max_iter), damping=damping)
    found = estimator.estimate(problem, hparams, problem.solution(hparams))
    truth = problem.hypergradient(hparams)
    return {
        "condition": condition,
        "damping": damping,
        "error": off(found.grad, truth),
        "bar": float(found.stats["error_estimate"]) / flatten(truth).norm().item(),
        "status": str(found.stats["error_status"]),
        "products": found.stats["num_matvecs"],
        "residual": found.stats["adjoint_residual"],
        "told": found.stats["adjoint_condition"],
    }


def main() -> None:
    """Print the tables and keep what the figure shows."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    console = Console(width=150)
    decays = [decay(3, l2) for l2 in PENALTIES]
    for found in decays:
        title = f"λ = {found['l2']:g}, κ = {found['condition']:.4g}: 1 − ρμ = {found['rate']:.6f}, "
        title += f"fitted to the unrolled error / T: {fitted_rate(found['rows']):.6f}"
        table = Table(
            *("T", "unrolled − closed form", "implicit − closed form", "its error bar"),
            *("unrolled − differences", "implicit − differences"),
            title=title,
            title_justify="left",
        )
        for num_steps, *errors in found["rows"]:
            table.add_row(str(num_steps), *(f"{error:.1e}" for error in errors))
        console.print(table)
    solves = [at_condition(condition, 0.0, 2000) for condition in CONDITIONS]
    table = Table("κ", "error", "error bar", "κ told", "products", "residual", "status", title="CG, without damping")
    for row in solves:
        numbers = (f"{row[key]:.1e}" for key in ("condition", "error", "bar", "told"))
        table.add_row(*numbers, str(row["products"]), f"{row['residual']:.1e}", row["status"][:60])
    console.print(table)
    curves = {
        f"κ = {condition:.0e}, {max_iter} products": [at_condition(condition, d, max_iter) for d in DAMPINGS]
        for condition in (1e2, 1e4, 1e8)
        for max_iter in (20, 2000)
    }
    table = Table("damping", *curves, title="relative error with damping", title_justify="left")
    for index, damping in enumerate(DAMPINGS):
        table.add_row(f"{damping:.0e}", *(f"{curve[index]['error']:.1e}" for curve in curves.values()))
    console.print(table)
    save("unrolled_error", {"decays": decays, "solves": solves, "damping": curves})


if __name__ == "__main__":
    main()
