"""Every estimator, tape, product and solver against the CPU, and resumed runs against those in one piece."""

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

import hypergrad as hg
from benchmarks.gpu.table import console
from benchmarks.gpu.workload import workloads
from hypergrad.core.autodiff import flatten

_STEPS = 8
_ADAM = partial(torch.optim.Adam, lr=0.1)
TOLERANCE = 1e-7
"""In float64. The kernels of a device round differently, and a solve amplifies that."""


def _estimators() -> dict[str, hg.HypergradEstimator]:
    solvers = {
        "GradientDescent": hg.GradientDescent(lr=0.1),
        "Momentum": hg.Momentum(lr=0.1),
        "Adam": hg.Adam(lr=0.01, eps=1e-2),
        "AdamW": hg.AdamW(lr=0.01, eps=1e-2),
        "Adagrad": hg.Adagrad(lr=0.1, eps=1e-2),
        "RMSprop": hg.RMSprop(lr=0.01, eps=1e-2),
    }
    tapes = {"Graph": hg.Graph(), "Store": hg.Store(), "Checkpoint": hg.Checkpoint(), "Reversible": hg.Reversible()}
    linsolves = {
        "CG": hg.CG(),
        "CG with Jacobi": hg.CG(preconditioner=hg.Jacobi()),
        "CG with Nyström": hg.CG(preconditioner=hg.Nystrom()),
        "MINRES": hg.MINRES(),
        "GMRES": hg.GMRES(),
        "Neumann": hg.Neumann(num_terms=20, scale=0.1),
        "Dense": hg.Dense(),
        "Auto": hg.Auto(),
    }
    products = {
        "Reverse": hg.Reverse(),
        "ForwardOverReverse": hg.ForwardOverReverse(),
        "CentredDifferences": hg.CentredDifferences(),
        "Traced": hg.Traced(precision="float64"),
    }
    implicit = partial(hg.Implicit, inner_steps=_STEPS, inner_tol=0.0, damping=0.1)
    return {
        **{f"Unrolled, {name}": hg.Unrolled(solver=one, inner_steps=_STEPS) for name, one in solvers.items()},
        **{
            f"tape {name}": hg.Unrolled(solver=solvers["Momentum"], tape=one, inner_steps=_STEPS)
            for name, one in tapes.items()
        },
        "Forward": hg.Forward(solver=solvers["Momentum"], inner_steps=_STEPS),
        **{f"Implicit, {name}": implicit(linsolve=one) for name, one in linsolves.items()},
        **{f"product {name}": implicit(product=one, error_bar=False) for name, one in products.items()},
    }


def _problem() -> hg.Supervised:
    """One penalty for each tensor and one weight for each example, in mini-batches, in float64."""
    effects = {"l2": hg.L2(init=1e-2, per="tensor"), "weights": hg.ExampleWeights(init=0.7)}
    work = workloads(torch.device("cpu"), tiny=True)["softmax"]
    module, (X, y), dev = work.parts
    return hg.Supervised(
        model=copy.deepcopy(module),
        loss=torch.nn.functional.cross_entropy,
        train=(X[:60], y[:60]),
        dev=dev,
        hyperparameters=effects,
        batch_size=20,
        probe=False,
    )


def correctness(device: torch.device, *, tiny: bool) -> bool:
    """The relative distance of each hypergradient from that of the CPU."""
    here = _problem()
    there = copy.deepcopy(here).to(device)
    table, right = Table("", "relative error", title="against the CPU, float64", title_justify="left"), True
    for name, estimator in _estimators().items():
        truth, found = (
            flatten(estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad).cpu()
            for problem in (here, there)
        )
        error = ((found - truth).norm() / truth.norm()).item()
        allowed = 1e-5 if "Differences" in name else TOLERANCE
        right &= error <= allowed
        table.add_row(name, f"{error:.0e}" + ("" if error <= allowed else f"  WRONG: more than {allowed:.0e}"))
    console.print(table)
    return right


def _fit(
    problem: hg.Supervised, estimator: hg.HypergradEstimator, optimizer: Callable, steps: int, folder: Path
) -> hg.Result:
    """Begin a run, or go on with what the folder holds."""
    trainer = hg.Trainer(
        problem=problem,
        estimator=estimator,
        optimizer=optimizer,
        outer_steps=steps,
        callbacks=[hg.StateSaver(folder)],
    )
    return trainer.fit(resume=folder, resume_if_any=True)


def resume(device: torch.device, *, tiny: bool) -> bool:
    """Runs in two parts and in one: λ to the same bits."""
    runs: dict[str, tuple[hg.HypergradEstimator, Callable]] = {
        "Implicit, Adam": (hg.Implicit(inner_steps=_STEPS, inner_tol=0.0, damping=0.1), _ADAM),
        "Unrolled, SGD": (hg.Unrolled(inner_steps=_STEPS), partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
        "Unrolled, LBFGSB": (hg.Unrolled(inner_steps=_STEPS), hg.LBFGSB),
        "Forward online, Adam": (hg.Forward(inner_steps=_STEPS, online=True), _ADAM),
    }
    table, right = Table("", "the same bits", title="resumed and in one piece", title_justify="left"), True
    for name, (estimator, optimizer) in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            ends = []
            for part, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
                problem = _problem().to(device)
                result = _fit(problem, estimator, optimizer, steps, Path(folder, part))
                ends.append(flatten(result.last.hparams))
        same = torch.equal(ends[0], ends[2])
        right &= same
        table.add_row(name, "yes" if same else f"NO: {(ends[0] - ends[2]).abs().max().item():.0e} apart")
    console.print(table)
    return right
