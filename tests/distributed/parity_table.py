"""Every strategy, by the name of its config, in an estimate that is cheap and needs no convergence; and the batches."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg

STEPS = 6
CG = hg.CG(tol=1e-13)
IMPLICIT = hg.Implicit(
    solver=hg.Momentum(lr=0.2), inner_steps=STEPS, inner_tol=0.0, damping=4.0, linsolve=CG, error_bar=False
)
UNROLLED = hg.Unrolled(solver=hg.Momentum(lr=0.2), inner_steps=STEPS)

LINSOLVES: dict[str, hg.LinearSolver] = {
    "auto": hg.Auto(tol=1e-13),
    "cg": CG,
    "cg_jacobi": replace(CG, preconditioner=hg.Jacobi()),
    "cg_nystrom": replace(CG, preconditioner=hg.Nystrom(rank=4)),
    "dense": hg.Dense(),
    "gmres": hg.GMRES(tol=1e-13),
    "minres": hg.MINRES(tol=1e-13),
    "neumann": hg.Neumann(num_terms=40, tol=0.0),
    "nystrom": hg.Nystrom(rank=4, rho=0.1),
}
PRODUCTS: dict[str, hg.Product] = {
    "auto": hg.Traced(least_flops=1e6, precision="float32"),
    # A longer step than the default one, whose rounding, ε / h, is above what is compared.
    "differences": hg.CentredDifferences(step=1e-3),
    "forward_over_reverse": hg.ForwardOverReverse(),
    "gauss_newton": hg.GaussNewton(),
    "reverse": hg.Reverse(),
    "traced": hg.Traced(),
}
SOLVERS: dict[str, hg.InnerSolver] = {
    "adagrad": hg.Adagrad(lr=0.1, eps=0.1),
    "adam": hg.Adam(lr=0.05, eps=0.1),
    "adamw": hg.AdamW(lr=0.05, eps=0.1, weight_decay=0.1),
    "fixed_point": hg.FixedPoint(rate=0.2),
    "gradient_descent": hg.GradientDescent(lr=0.2),
    "lbfgs": hg.LBFGS(),
    "momentum": UNROLLED.solver,
    "nesterov": hg.Momentum(lr=0.2, nesterov=True),
    "newton": hg.Newton(linsolve=hg.CG(tol=1e-12)),
    "rmsprop": hg.RMSprop(lr=0.05, eps=0.1),
}
OF_ONE_BATCH = ("lbfgs", "newton")
"""Solvers of implicit estimators, which need the same batch at every step."""
OF_L1 = ("coordinate_descent", "proximal_gradient")
"""Solvers of problems with an L1 penalty, which `DataParallel` refuses."""
TAPES: dict[str, hg.Tape] = {
    "auto": hg.AutoTape(),
    "checkpoint": hg.Checkpoint(slots=2),
    "graph": hg.Graph(),
    "reversible": hg.Reversible(),
    "store": hg.Store(),
}
METHODS: dict[str, hg.Method] = {
    "amigo": hg.AmIGO(solver=hg.GradientDescent(lr=0.2), inner_steps=3, adjoint_steps=3),
    "bome": hg.BOME(solver=hg.GradientDescent(lr=0.2), inner_steps=3),
    "f2sa": hg.F2SA(),
    "masoba": hg.MASOBA(),
    "meha": hg.MEHA(),
    "saba": hg.SABA(),
    "sama": hg.SAMA(),
    "soba": hg.SOBA(),
    "srba": hg.SRBA(),
}
OTHERS: dict[str, hg.HypergradEstimator] = {
    "forward": hg.Forward(solver=UNROLLED.solver, inner_steps=STEPS),
    "horizon": replace(UNROLLED, horizon=3),
}
BATCHES: dict[str, dict[str, Any]] = {
    "full": {"train": 24, "dev": 12},
    "mini-batch": {"train": 24, "dev": 12, "batch_size": 8},
    "uneven": {"train": 23, "dev": 11, "batch_size": 7},
    "empty part": {"train": 23, "dev": 1, "batch_size": 1},
    "weights": {"train": 23, "dev": 11, "batch_size": 7, "weighted": True},
}


class Estimate(NamedTuple):
    """An estimator, and the arguments of `made` for its problem."""

    estimator: hg.HypergradEstimator
    batches: Mapping[str, Any]


def made(
    *, train: int, dev: int, batch_size: int | None = None, weighted: bool = False, dtype=torch.float64, **more: Any
) -> hg.Supervised:
    """Two tanh layers on a few examples. λ is an L2 penalty for each tensor, and maybe a weight for each example."""
    g = torch.Generator().manual_seed(1)
    X = torch.randn(train + dev, 3, generator=g, dtype=torch.float64).to(dtype)
    y = torch.randint(0, 3, (train + dev,), generator=g)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) / 2)
    weights = {"weights": hg.ExampleWeights()} if weighted else {}
    return hg.Supervised(
        model=model,
        loss=cross_entropy,
        train=(X[:train], y[:train]),
        dev=(X[train:], y[train:]),
        hyperparameters={"l2": hg.L2(init=0.05, per="tensor"), **weights},
        batch_size=batch_size,
        probe=False,
        **more,
    )


def solved(linsolve: str, product: str) -> hg.HypergradEstimator:
    return replace(IMPLICIT, linsolve=LINSOLVES[linsolve], product=PRODUCTS[product])


def trained(solver: str, tape: str) -> hg.HypergradEstimator:
    """An estimator that differentiates the steps of a solver, where they can be."""
    if solver in OF_ONE_BATCH:
        return replace(IMPLICIT, solver=SOLVERS[solver])
    return replace(UNROLLED, solver=SOLVERS[solver], tape=TAPES[tape])


def every_estimate() -> dict[str, Estimate]:
    """Every estimator × batches."""
    return {
        f"{name}, {batches}": Estimate(estimator, sizes if part_is_free(name) else sizes | {"batch_size": None})
        for (batches, sizes), (name, estimator) in product(BATCHES.items(), dict(_every_estimator()).items())
    }


def some_estimates() -> dict[str, Estimate]:
    """Every strategy at least once, with some of the batches."""
    every, batches = every_estimate(), list(BATCHES)
    named = [f"{linsolve} by reverse" for linsolve in LINSOLVES]
    named += [f"cg by {product}" for product in PRODUCTS if product != "reverse"]
    named += [f"{solver} on {'-' if solver in OF_ONE_BATCH else 'store'}" for solver in SOLVERS]
    named += [f"momentum on {tape}" for tape in TAPES if tape != "store"]
    named += list(OTHERS)
    names = [f"{name}, {batches[k % len(batches)]}" for k, name in enumerate(named)]
    return {name: every[name] for name in names}


def part_is_free(name: str) -> bool:
    """Whether an estimator serves mini-batches."""
    return name.split(" on ")[0] not in OF_ONE_BATCH


def tolerance(name: str) -> float:
    """How far the hypergradient of several processes may be from that of one, relative, in float64."""
    if name.startswith("lbfgs"):
        return 1e-7
    return 1e-9 if "reversible" in name or "differences" in name else 1e-10


def _every_estimator() -> Iterator[tuple[str, hg.HypergradEstimator]]:
    for linsolve, how in product(LINSOLVES, PRODUCTS):
        yield f"{linsolve} by {how}", solved(linsolve, how)
    for solver, tape in product(SOLVERS, TAPES):
        if solver in OF_ONE_BATCH:
            yield f"{solver} on -", trained(solver, tape)
        elif tape != "reversible" or solver == "momentum":
            yield f"{solver} on {tape}", trained(solver, tape)
    yield from OTHERS.items()
