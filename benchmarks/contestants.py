"""The contestants: handwritten code, and settings of ours; a new setting is one line here."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

import hypergrad as hg
from benchmarks import by_hand
from benchmarks.case import Case
from hypergrad.core.autodiff import flatten
from hypergrad.linsolve.spectrum import largest_eigenvalue

implicit = partial(hg.Implicit, inner_steps=0, error_bar=False)

AUTO = hg.Traced(least_flops=1e6, precision="float32")
"""As in configs/product/auto.yaml."""

BY_BUDGET: dict[str, Callable[[int, float], hg.Implicit]] = {
    "hypergrad, CG": lambda K, scale: implicit(linsolve=hg.CG(max_iter=K, tol=0.0)),
    "hypergrad, CG with Jacobi": lambda K, scale: implicit(
        linsolve=hg.CG(max_iter=K, tol=0.0, preconditioner=hg.Jacobi(num_probes=2, per="slice"))
    ),
    "hypergrad, CG with Nyström": lambda K, scale: implicit(
        linsolve=hg.CG(max_iter=K, tol=0.0, preconditioner=hg.Nystrom())
    ),
    "hypergrad, CG on a trace": lambda K, scale: implicit(linsolve=hg.CG(max_iter=K, tol=0.0), product=hg.Traced()),
    "hypergrad, auto": lambda K, scale: implicit(linsolve=hg.Auto(max_iter=K, tol=0.0), product=AUTO),
    "hypergrad, auto, compiled": lambda K, scale: implicit(
        linsolve=hg.Auto(max_iter=K, tol=0.0), product=replace(AUTO, compile=True)
    ),
    "hypergrad, Neumann": lambda K, scale: implicit(linsolve=hg.Neumann(num_terms=K, tol=0.0, scale=scale)),
}
"""Estimators by a budget of K iterations, and 1/λ_max where it is good for something."""

BY_TOLERANCE: dict[str, Callable[[float], hg.Implicit]] = {
    "hypergrad, by tolerance": lambda tol: implicit(linsolve=hg.CG(max_iter=10_000, tol=tol)),
    "hypergrad, auto by tolerance": lambda tol: implicit(linsolve=hg.Auto(max_iter=10_000, tol=tol), product=AUTO),
    "the same, with error bar": lambda tol: implicit(
        linsolve=hg.Auto(max_iter=10_000, tol=tol), product=AUTO, error_bar=True
    ),
}
"""Estimators that stop by themselves, at a tolerance that is the error asked for."""

BY_PRODUCT: dict[str, hg.Product] = {
    "hypergrad, Reverse": hg.Reverse(),
    "hypergrad, a trace in float32": hg.Traced(),
    "the same, compiled": hg.Traced(compile=True),
}
"""How products are formed, for the time of one."""


@dataclass(frozen=True)
class Outcome:
    """What a contestant returned.

    Attributes:
        hypergradient: flat.
        products: Hessian products spent on it.
        seconds: of one call, the mean of several in a row.
        megabytes: peak memory of the calls, where it was looked at.
    """

    hypergradient: Tensor
    products: int
    seconds: float
    megabytes: float = float("nan")


class Contestant(ABC):
    """Whoever makes a hypergradient with a budget of K products, or, where `budgeted` is off, to a tolerance."""

    budgeted: bool = True

    @abstractmethod
    def run(self, budget: float, calls: int = 1) -> Outcome:
        """Make it `calls` times in a row."""


@dataclass(frozen=True)
class Local(Contestant):
    """One in this process.

    Attributes:
        work: the hypergradient of a budget, flat, and the products spent.
        budgeted: see `Contestant`.
    """

    work: Callable[[float], tuple[Tensor, int]]
    budgeted: bool = True

    def run(self, budget: float, calls: int = 1) -> Outcome:
        begin = time.perf_counter()
        for _ in range(calls - 1):
            self.work(budget)
        hypergradient, products = self.work(budget)
        return Outcome(hypergradient, products, (time.perf_counter() - begin) / calls)


REFERENCE = "by hand, retained graph"


def local(case: Case, scale: float) -> dict[str, Contestant]:
    """All contestants of this process; `scale` is 1/λ_max."""
    everyone: dict[str, Contestant] = {
        REFERENCE: Local(_by_hand(case, by_hand.on_retained_graph)),
        "by hand, closed form": Local(_by_hand(case, by_hand.on_closed_form)),
    }
    for name, make in BY_BUDGET.items():
        everyone[name] = Local(_estimate(case, lambda K, make=make: make(int(K), scale)))
    for name, make in BY_TOLERANCE.items():
        everyone[name] = Local(_estimate(case, make), budgeted=False)
    return everyone


def inverse_curvature(case: Case) -> float:
    """1/λ_max of the damped Hessian, by power iteration."""
    b, product, _ = by_hand.retained_graph(case)
    return 1 / largest_eigenvalue(product, b, num_iter=50)


def _by_hand(case: Case, method: Callable[[Case, int], Tensor]) -> Callable[[float], tuple[Tensor, int]]:
    return lambda K: (method(case, int(K)), int(K))


def _estimate(case: Case, make: Callable[[float], hg.Implicit]) -> Callable[[float], tuple[Tensor, int]]:
    def work(budget: float) -> tuple[Tensor, int]:
        estimator = replace(make(budget), damping=case.damping)
        found = estimator.estimate(case.problem, case.hparams, case.params)
        spent = int(found.stats["num_matvecs"]) + int(found.stats.get("error_matvecs", 0))
        return flatten(found.grad), spent

    return work
