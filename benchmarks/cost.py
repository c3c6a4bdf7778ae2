"""What gradients and hypergradients cost in units of what they differentiate, in CPU time.

python -m benchmarks.cost
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import mse_loss

import hypergrad as hg
from benchmarks.measure import clocked, interleaved, limit_threads, ratios
from hypergrad.training.dynamics import Dynamics

ROUNDS = 9
PENALTIES = (1, 4, 16, 64, 256)
MODES = "reverse → forward mode, 25 steps of ridge regression with 256 features"


def network(width: int) -> torch.nn.Module:
    """Four layers of tanh."""
    layers = [torch.nn.Linear(width, width) for _ in range(4)]
    return torch.nn.Sequential(*(module for layer in layers for module in (layer, torch.nn.Tanh())))


def gradients(width: int, rows: int) -> dict[str, Callable[[], object]]:
    """A function of the weights of a network, and its gradient."""
    model, X = network(width), torch.randn(rows, width)
    weights = tuple(model.parameters())

    def value() -> Tensor:
        with torch.no_grad():
            return model(X).square().mean()

    return {"f": value, "∇f": lambda: torch.autograd.grad(model(X).square().mean(), weights)}


def hypergradients(num_steps: int, per: str) -> dict[str, Callable[[], object]]:
    """Training, and the hypergradient through it."""
    torch.manual_seed(0)
    parts = [(torch.randn(200, 32), torch.randn(200, 32)) for _ in range(2)]
    problem = hg.Supervised(
        model=network(32),
        loss=mse_loss,
        train=parts[0],
        dev=parts[1],
        hyperparameters={"l2": hg.L2(init=1e-3, per=per)},
    )
    solver, hparams, start = hg.GradientDescent(lr=0.1), problem.init_hparams(), problem.init_params()

    dynamics = Dynamics(problem, solver, hparams)

    def training() -> object:
        return dynamics.advance(solver.init(start), range(num_steps))

    unrolled = hg.Unrolled(solver=solver, inner_steps=num_steps)
    return {"training": training, "hypergradient": lambda: unrolled.estimate(problem, hparams, start)}


def modes(num_hyperparameters: int) -> dict[str, Callable[[], object]]:
    """One hypergradient backwards and forwards, through 25 steps."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        hg.Split(torch.randn(300, 256, generator=generator), torch.randn(300, generator=generator)) for _ in range(3)
    ]
    ridge = hg.Ridge(hg.Splits(*parts), l2=0.1, per_feature=True)
    problem, solver = hg.Tied(ridge, name="l2", groups=num_hyperparameters), hg.GradientDescent(lr=0.05)
    hparams, start = problem.init_hparams(), problem.init_params()
    kinds = {"reverse": hg.Unrolled, "forward": hg.Forward}
    estimators = {name: kind(solver=solver, inner_steps=25) for name, kind in kinds.items()}
    return {name: lambda each=each: each.estimate(problem, hparams, start) for name, each in estimators.items()}


def compared(works: dict[str, Callable[[], object]]) -> tuple[float, float, float, float]:
    """Milliseconds of both, the ratio of the second to the first, and its quartiles apart."""
    times = interleaved({name: clocked(work, 3, time.process_time) for name, work in works.items()}, repeats=ROUNDS)
    first, second = times.values()
    ratio, spread = ratios(second, first)
    return 1e3 * sorted(first)[ROUNDS // 2], 1e3 * sorted(second)[ROUNDS // 2], ratio, spread


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the size by which the values grow: the slope of the line through their logarithms."""
    return statistics.linear_regression(*([math.log(x) for x in xs] for xs in (sizes, values))).slope


def main() -> None:
    """Print the tables."""
    limit_threads(1)
    torch.set_default_dtype(torch.float64)
    cases = {
        "f → ∇f, a network of 4 layers on 200 examples": [
            (f"{width} wide", gradients(width, 200)) for width in (8, 32, 128, 256)
        ],
        "training → hypergradient, a network 32 wide on 200 examples": [
            (f"T = {T}, {'1 penalty' if per == 'all' else '4,224 penalties'}", hypergradients(T, per))
            for T in (10, 100)
            for per in ("all", "weight")
        ],
        MODES: [(f"{p} penalties", modes(p)) for p in PENALTIES],
    }
    for title, rows in cases.items():
        table, found = Table("", "ms", "ms", "ratio", "quartiles apart", title=title, title_justify="left"), []
        for name, works in rows:
            first, second, ratio, spread = compared(works)
            found.append((first, second))
            table.add_row(name, f"{first:.2f}", f"{second:.2f}", f"{ratio:.2f}", f"{spread:.2f}")
        if title == MODES:
            table.add_row("slope", *(f"{slope(PENALTIES, times):.2f}" for times in zip(*found, strict=True)))
            last = (slope(PENALTIES[-2:], times[-2:]) for times in zip(*found, strict=True))
            table.add_row("slope at the end", *(f"{value:.2f}" for value in last))
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
