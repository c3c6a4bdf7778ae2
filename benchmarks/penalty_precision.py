"""How far the direction of F2SA is from dF/dλ by multiplier and precision, at the minima of its two losses.

python -m benchmarks.penalty_precision
"""

from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import hypergrad as hg
from benchmarks.measure import limit_threads
from hypergrad.core.autodiff import Tensors, detach, flatten, unflatten
from hypergrad.problem.precision import in_precision
from hypergrad.single_loop.terms import Terms

PRECISIONS = (None, "float32", "bf16-mixed", "bf16-true")
MULTIPLIERS = {"linear": (1, 10, 100, 1000, 10000), "MLP": (1, 10, 100, 1000)}


def problem_named(name: str) -> hg.HyperCleaning:
    """Digits with half of the labels wrong, and a weight for each of 899 train images."""
    torch.manual_seed(0)
    model = None if name == "linear" else nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    return hg.HyperCleaning(hg.digits(), model=model, l2=1e-2)


def minimum(loss: Callable[[Tensors], Tensor], start: Tensors) -> Tensors:
    """A minimum of a loss, to a gradient of about 1e-8."""
    w = flatten(start).clone().requires_grad_()
    tolerances = {"tolerance_grad": 1e-13, "tolerance_change": 0, "max_iter": 3000, "history_size": 50}
    optimizer = torch.optim.LBFGS([w], line_search_fn="strong_wolfe", **tolerances)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(unflatten(w, start))
        value.backward()
        return value

    optimizer.step(closure)
    return detach(unflatten(w, start))


def errors(problem: hg.HyperCleaning, multipliers: tuple[int, ...]) -> Iterator[list[float]]:
    """The relative errors by precision, for each multiplier."""
    hparams, start = problem.init_hparams(), problem.init_params()
    z = minimum(lambda w: problem.inner_loss(w, hparams, None), start)
    linsolve = hg.CG(max_iter=2000, tol=1e-12)
    exact = flatten(hg.Implicit(inner_steps=0, linsolve=linsolve, error_bar=False).estimate(problem, hparams, z).grad)
    memory = {"solver": {}, "z": z, "z_solver": {}}
    for s in multipliers:

        def penalty(w: Tensors, s: int = s) -> Tensor:
            return problem.inner_loss(w, hparams, None) + problem.outer_loss(w, hparams, None) / s

        y, method = minimum(penalty, z), hg.F2SA(solver=hg.GradientDescent(), multiplier=s, growth=0.0)
        terms = [Terms(in_precision(problem, precision), 0, 0) for precision in PRECISIONS]
        moves = [method.move(each, y, hparams, memory, 0) for each in terms]
        yield [float((move.direction - exact).norm() / exact.norm()) for move in moves]


def main() -> None:
    """Print the table."""
    limit_threads(1)
    torch.set_default_dtype(torch.float64)
    table = Table("problem", "s", *(p or "float64" for p in PRECISIONS))
    for name, multipliers in MULTIPLIERS.items():
        for s, row in zip(multipliers, errors(problem_named(name), multipliers), strict=True):
            table.add_row(name, str(s), *(f"{error:.1e}" for error in row))
    Console().print(table)


if __name__ == "__main__":
    main()
