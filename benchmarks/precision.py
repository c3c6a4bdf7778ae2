"""How far gradients, products and hypergradients in each precision are from those in float64, on three networks.

python -m benchmarks.precision
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.measure import limit_threads
from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import InPrecision

PRECISIONS = ("float32", "bf16-mixed", "bf16-true")
DAMPING = 0.5
TAPES = {"Graph": hg.Graph(), "Store": hg.Store(), "Checkpoint": hg.Checkpoint(), "Reversible": hg.Reversible()}


class Convolutions(nn.Module):
    """Two layers of convolutions on 8 × 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.last = nn.Linear(256, 10)

    def forward(self, X: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(X.view(-1, 1, 8, 8))))).flatten(1))


class Transformer(nn.Module):
    """Two layers on the 8 rows of an image, each of which is a token."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.places = nn.Linear(8, 32), nn.Parameter(0.1 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, activation="gelu")
        self.body, self.last = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 10)

    def forward(self, X: Tensor) -> Tensor:
        return self.last(self.body(self.rows(X.view(-1, 8, 8)) + self.places).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "MLP": lambda: nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)),
    "CNN": Convolutions,
    "transformer": Transformer,
}


def problem(model: nn.Module, dtype: torch.dtype) -> hg.Supervised:
    """128 train and 128 dev digits, with a weight for each train example and one penalty."""
    data = hg.digits()
    train, dev = ((split.X[:128].to(dtype), split.y[:128]) for split in (data.train, data.dev))
    hyperparameters = {"weights": hg.ExampleWeights(), "l2": hg.L2(init=1e-2)}
    model = copy.deepcopy(model).to(dtype)
    return hg.Supervised(
        model=model, loss=cross_entropy, train=train, dev=dev, hyperparameters=hyperparameters, probe=False
    )


@dataclass(frozen=True)
class Case:
    """A network at its initial weights and after 300 steps, in float32 and in float64.

    Attributes:
        single: the problem in float32.
        exact: the problem in float64.
        trained: w, in float32.
    """

    single: hg.Supervised
    exact: hg.Supervised
    trained: Tensors

    @classmethod
    def of(cls, name: str) -> "Case":
        """Train a network."""
        torch.manual_seed(0)
        model = MODELS[name]()
        single, exact = (problem(model, dtype) for dtype in (torch.float32, torch.float64))
        training = hg.Training(solver=hg.Momentum(lr=0.1), steps=300, tol=0.0)
        return cls(single, exact, training.run(single, single.init_hparams(), single.init_params()).params)

    def errors(self, ask: Callable[[hg.InnerProblem, Tensors, Tensors], Tensor], params: Tensors) -> list[float]:
        """‖x − y‖ / ‖y‖ of a flat answer about (problem, λ, w) in each precision, y in float64; NaN if refused."""
        hp = self.single.init_hparams()
        wanted, found = ask(self.exact, _double(hp), _double(params)), []
        for precision in PRECISIONS:
            try:
                x = ask(InPrecision(self.single, precision), hp, params).double()
                found.append(((x - wanted).norm() / wanted.norm()).item())
            except (ValueError, hg.HypergradError):
                found.append(float("nan"))
        return found


def _double(tensors: Tensors) -> Tensors:
    return {name: x.double() for name, x in tensors.items()}


def gradient(one: hg.InnerProblem, hp: Tensors, w: Tensors) -> Tensor:
    """∇_w g, flat."""
    with torch.no_grad():
        return flatten(one.inner_loss_and_gradient(w, hp, None)[1])


def product(how: hg.Product) -> Callable[[hg.InnerProblem, Tensors, Tensors], Tensor]:
    """H v along a random v; in float64 by `Reverse` instead of differences."""

    def ask(one: hg.InnerProblem, hp: Tensors, w: Tensors) -> Tensor:
        near = hg.Reverse() if isinstance(how, hg.CentredDifferences) and not isinstance(one, InPrecision) else how
        size = sum(x.numel() for x in w.values())
        v = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return near.linearize(Oracle(one, hp), w).product(v.to(next(iter(w.values())).dtype))

    return ask


def hypergradient(estimator: hg.HypergradEstimator) -> Callable[[hg.InnerProblem, Tensors, Tensors], Tensor]:
    """dF/dλ, flat; in float64 with a tolerance of 1e-10, and by `Reverse` instead of differences."""

    def ask(one: hg.InnerProblem, hp: Tensors, w: Tensors) -> Tensor:
        how = estimator
        if isinstance(how, hg.Implicit) and not isinstance(one, InPrecision):
            exact = hg.Reverse() if isinstance(how.product, hg.CentredDifferences) else how.product
            how = replace(how, linsolve=hg.MINRES(max_iter=2000, tol=1e-10), product=exact)
        return flatten(how.estimate(one, hp, w).grad)

    return ask


def residual(tol: float) -> Callable[[hg.InnerProblem, Tensors, Tensors], float]:
    """The relative residual that MINRES reaches."""

    def ask(one: hg.InnerProblem, hp: Tensors, w: Tensors) -> float:
        report = implicit(hg.MINRES(tol=tol)).estimate(one, hp, w).adjoint_system
        assert report is not None
        return report.residual

    return ask


def implicit(linsolve: hg.LinearSolver, how: hg.Product = hg.Reverse()) -> hg.Implicit:  # noqa: B008
    """At given parameters, damped, because a network after 300 steps has negative curvature."""
    return hg.Implicit(linsolve=linsolve, product=how, inner_steps=0, damping=DAMPING, error_bar=False)


PRODUCTS = {
    "by reverse over reverse": hg.Reverse(),
    "by forward over reverse": hg.ForwardOverReverse(),
    "Gauss–Newton": hg.GaussNewton(),
    "centred differences": hg.CentredDifferences(),
    "the same with the step of float32": hg.CentredDifferences(step=5e-3),
}
SOLVERS = {
    "CG": implicit(hg.CG(tol=1e-2)),
    "CG, tol = 1e-6": implicit(hg.CG()),
    "MINRES": implicit(hg.MINRES(tol=1e-2)),
    "Neumann, 50 terms": implicit(hg.Neumann(num_terms=50)),
    "CG, Gauss–Newton": implicit(hg.CG(tol=1e-2), hg.GaussNewton()),
    "CG, differences": implicit(hg.CG(tol=1e-2), hg.CentredDifferences()),
}


def rows(case: Case) -> dict[str, list[float]]:
    """All errors of one network, by what is asked."""
    start, w, hp = case.single.init_params(), case.trained, case.single.init_hparams()
    found = {
        "gradient at the start": case.errors(gradient, start),
        "gradient after 300 steps": case.errors(gradient, w),
    }
    found |= {f"H v {name}": case.errors(product(how), w) for name, how in PRODUCTS.items()}
    reached = residual(1e-6)
    found["residual that MINRES reaches"] = [reached(InPrecision(case.single, one), hp, w) for one in PRECISIONS]
    found |= {f"dF/dλ by {name}": case.errors(hypergradient(how), w) for name, how in SOLVERS.items()}
    for name, tape in TAPES.items():
        estimator = hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=20, tape=tape)
        found[f"dF/dλ unrolled, {name}"] = case.errors(hypergradient(estimator), start)
    return found


def main() -> None:
    """Print the table."""
    limit_threads(1)
    tables = {name: rows(Case.of(name)) for name in MODELS}
    table = Table("relative error", *(f"{name} {precision}" for name in MODELS for precision in PRECISIONS))
    for what in next(iter(tables.values())):
        cells = [x for found in tables.values() for x in found[what]]
        table.add_row(what, *("refused" if x != x else f"{x:.1e}" for x in cells))
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
