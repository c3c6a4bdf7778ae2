"""The host looks at iterations every few of them on a GPU: the same result, and how often it waits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from spectra import SPECTRA, Counted, N, rhs, spd
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import hypergrad as hg
from hypergrad.linsolve import window
from hypergrad.linsolve.recording import Recording
from hypergrad.problem.oracle import Oracle

KRYLOV = {
    "cg": hg.CG(),
    "cg-jacobi": hg.CG(preconditioner=hg.Jacobi()),
    "cg-nystrom": hg.CG(preconditioner=hg.Nystrom(rank=8)),
    "minres": hg.MINRES(),
    "gmres": hg.GMRES(),
    "gmres-restarted": hg.GMRES(restart=7),
    "neumann": hg.Neumann(num_terms=300),
    "neumann-too-long": hg.Neumann(num_terms=300, scale=1.0),
}
INDEFINITE = torch.cat([torch.tensor([-0.5]), torch.linspace(0.5, 3.0, N - 1)])
SYSTEMS = {
    **SPECTRA,
    "large": torch.logspace(-2, 1, 150),
    "indefinite": INDEFINITE,
    "singular": torch.cat([torch.zeros(3), torch.linspace(0.5, 3.0, N - 3)]),
    "negative": -SPECTRA["spread"],
    "zero": torch.zeros(N),
}
TOLERANCES = {"reached": {"tol": 1e-6}, "stagnates": {"tol": 1e-30}, "runs out": {"tol": 1e-12, "max_iter": 12}}


class Waits(TorchDispatchMode):
    """Counts the operations that need a value, for which the host would wait for a GPU."""

    NAMES = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.count, self.lists = 0, _Lists(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in self.NAMES
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> "Waits":
        self.lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.lists.__exit__(*error)


class _Lists(TorchFunctionMode):
    """Counts `tolist`, which on the CPU is no operation."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.waits.count += func is Tensor.tolist
        return func(*args, **(kwargs or {}))


@pytest.fixture
def windows(monkeypatch) -> Callable[[int], None]:
    """Sets the number of iterations in a window on the CPU."""
    return lambda size: monkeypatch.setitem(window.SIZES, "cpu", size)


def outcome(solver: hg.LinearSolver, A: Any, b: Tensor, x0: Tensor | None) -> tuple[Any, ...]:
    try:
        found = solver.solve(A, b, x0)
    except hg.HypergradError as error:
        return type(error), str(error)
    return found.x.tolist(), found.residual, found.status, found.remark, str(found.condition)


@pytest.mark.parametrize("tolerance", TOLERANCES.values(), ids=TOLERANCES)
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("solver", KRYLOV.values(), ids=KRYLOV)
def test_result_and_status_do_not_depend_on_the_window(solver, name, tolerance, windows):
    A = spd(SYSTEMS[name])
    if not isinstance(solver, hg.Neumann):
        solver = replace(solver, **tolerance)
    elif "max_iter" in tolerance:
        solver = replace(solver, num_terms=12)
    for x0 in (None, rhs(len(A)).flip(0)):
        met, spent = [], []
        for size in (1, 5, 3):
            windows(size)
            matvec = Counted(A)
            met.append(outcome(solver, matvec, rhs(len(A)), x0))
            spent.append(matvec.count)
        assert met[1] == met[0]
        assert met[2] == met[0]
        assert spent[0] <= spent[1]


@pytest.mark.parametrize("product", [3, 6, 9])
@pytest.mark.parametrize("solver", KRYLOV.values(), ids=KRYLOV)
def test_a_product_that_blows_up_is_named_by_its_number(solver, product, windows):
    met = []
    for size in (1, 5):
        windows(size)
        matvec = Counted(spd(SYSTEMS["large"]))

        def product_of(v: Tensor, matvec: Counted = matvec) -> Tensor:
            return matvec(v) * (torch.nan if matvec.count >= product else 1)

        met.append(outcome(solver, product_of, rhs(150), None))
    assert met[0] == met[1]


@pytest.mark.parametrize("solver", [KRYLOV["cg"], KRYLOV["minres"], KRYLOV["gmres"]], ids=["cg", "minres", "gmres"])
def test_products_after_the_last_iteration_are_counted_and_few(solver, windows):
    A = spd(SYSTEMS["large"])
    counts = []
    for size in (1, 5):
        windows(size)
        matvec = Counted(A)
        found = solver.solve(matvec, rhs(150))
        assert found.num_matvecs == matvec.count
        counts.append(matvec.count)
    assert counts[0] <= counts[1] <= counts[0] + 4


def test_an_approximate_operator_is_iterated_on_in_windows(windows):
    A = spd(SYSTEMS["large"])
    near = hg.Operator(A.float().matmul, dtype=torch.float32)
    exact = hg.Operator(A.matmul, approximate=lambda: near)
    found = []
    for size in (1, 5):
        windows(size)
        found.append(outcome(hg.CG(tol=1e-10), exact, rhs(150), None))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", [name for name in KRYLOV if name != "neumann-too-long"])
def test_the_host_waits_once_for_five_iterations(name, windows):
    windows(5)
    solver, waits = KRYLOV[name], []
    for iterations in (20, 70):
        solver = replace(solver, tol=0.0, **{"num_terms" if name == "neumann" else "max_iter": iterations})
        with Waits() as met:
            found = solver.solve(spd(SYSTEMS["large"]).matmul, rhs(150))
        assert found.num_matvecs >= iterations
        waits.append(met.count)
    restarts = 7 * 3 if name == "gmres-restarted" else 3
    assert waits[1] - waits[0] <= 50 / 5 + restarts


def test_recording_products_waits_for_nothing():
    seen = Recording()
    watched = seen.watch(hg.Operator(spd(SPECTRA["spread"]).matmul))
    with Waits() as met:
        for _ in range(20):
            watched(rhs())
        watched(torch.zeros(N))
        watched(torch.full((N,), torch.nan))
    assert met.count == 0
    assert len(seen.vectors) == len(seen.products) == 20


PRODUCTS = {
    "reverse": hg.Reverse(),
    "differences": hg.CentredDifferences(),
    "forward over reverse": hg.ForwardOverReverse(),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_waits_for_nothing(product):
    problem = hg.Quadratic(size=7)
    oracle = Oracle(problem, {k: hp.value(torch.float64) for k, hp in problem.hyperparameters().items()})
    here = product.linearize(oracle, problem.init_params())
    here.mixed(here.phi)  # forward over reverse is checked once
    with Waits() as met:
        for _ in range(3):
            here.product(here.phi)
        if not isinstance(product, hg.ForwardOverReverse):
            here.mixed(here.phi)
    assert met.count == 0


def test_differences_along_zero_are_zero():
    problem = hg.Quadratic(size=7)
    oracle = Oracle(problem, {k: hp.value(torch.float64) for k, hp in problem.hyperparameters().items()})
    here = hg.CentredDifferences().linearize(oracle, problem.init_params())
    zero = torch.zeros_like(here.phi)
    assert torch.equal(here.product(zero), zero)
    assert not any(term is None or term.any() for term in here.mixed(zero).values())


def test_an_estimate_waits_once_for_five_iterations_and_a_fixed_number_of_times(windows):
    windows(5)
    problem, counts = hg.Quadratic(size=130, condition=1e3, penalty=1e-3), []
    hparams = {k: hp.value(torch.float64) for k, hp in problem.hyperparameters().items()}
    for tol in (1e-1, 1e-10):
        estimator = hg.Implicit(linsolve=hg.CG(max_iter=500, tol=tol), inner_steps=0, error_bar=False)
        with Waits() as met:
            found = estimator.estimate(problem, hparams, problem.solution(hparams))
        counts.append((found.num_matvecs, met.count))
    (few, waits), (many, more) = counts
    assert many > few + 50
    assert more - waits <= (many - few) / 5 + 3
