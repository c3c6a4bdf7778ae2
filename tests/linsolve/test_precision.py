"""Single precision, and iterations on an operator that approximates A."""

from dataclasses import replace

import pytest
import torch
from spectra import ITERATIVE, SOLVERS, SPECTRA, Counted, N, rhs, spd

import hypergrad as hg
from hypergrad.core.operator import CannotApproximateError
from hypergrad.linsolve.krylov import Krylov

SINGLE = {name: spectrum for name, spectrum in SPECTRA.items() if name != "condition 1e8"}
KRYLOV = {name: solver for name, solver in SOLVERS.items() if isinstance(solver, Krylov)}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("name", SINGLE)
def test_single_precision_says_what_it_reached(name, solver):
    A = spd(SINGLE[name]).float()
    b = rhs(len(A)).float()
    if solver in ITERATIVE.values() and not isinstance(solver, hg.Auto):
        solver = replace(solver, tol=1e-2 if name == "condition 1e3" else 1e-4)
    found = solver.solve(Counted(A), b)
    assert found.x.dtype == torch.float32
    assert found.converged
    residual = ((b.double() - A.double() @ found.x.double()).norm() / b.norm()).item()
    assert found.residual == pytest.approx(residual, abs=1e-2 if name == "condition 1e3" else 1e-5)
    assert residual <= (1.5e-2 if name == "condition 1e3" else 1.1e-4)


def near(A: torch.Tensor, approximation: torch.Tensor | None = None) -> hg.Operator:
    """A, and an approximation of it in single precision: rounded, or another matrix."""
    single = (A if approximation is None else approximation).float()
    return hg.Operator(
        A.matmul, approximate=lambda: hg.Operator(Counted(single), dtype=torch.float32, name="the rounded matrix")
    )


@pytest.mark.parametrize("solver", KRYLOV.values(), ids=KRYLOV)
@pytest.mark.parametrize("columns", [0, 3])
@pytest.mark.parametrize("name", SINGLE)
def test_iterations_in_single_precision_reach_a_residual_of_double(name, columns, solver):
    A = spd(SINGLE[name])
    b = rhs(len(A)) if columns == 0 else torch.stack([rhs(len(A)).roll(i) for i in range(columns)], dim=1)
    found = solver.solve(near(A), b)
    assert found.converged
    assert found.remark == "iterated on the rounded matrix"
    assert found.residual <= 1e-10
    assert ((b - A @ found.x).norm(dim=0) / b.norm(dim=0)).max() <= 1e-10 + 1e-14


@pytest.mark.parametrize("solver", KRYLOV.values(), ids=KRYLOV)
@pytest.mark.parametrize(
    "wrong",
    [spd(SPECTRA["spread"], seed=9), -spd(SPECTRA["spread"]), torch.full((N, N), float("nan"))],
    ids=["another", "negative", "nan"],
)
def test_an_approximation_that_is_wrong_costs_products_and_no_truth(solver, wrong):
    A = spd(SPECTRA["spread"])
    found = solver.solve(near(A, wrong), rhs())
    assert "went on with the exact product" in found.remark
    assert found.converged
    assert (found.x - torch.linalg.solve(A, rhs())).norm() <= 1e-8 * found.x.norm()


def test_beyond_the_reach_of_single_precision_the_exact_product_takes_over():
    A = spd(SPECTRA["condition 1e8"])
    found = hg.CG(max_iter=5000, tol=1e-6).solve(near(A), rhs())
    assert found.converged
    assert "went on with the exact product" in found.remark


def test_why_there_is_no_approximation_is_said():
    def refuse():
        raise CannotApproximateError("there is none today")

    found = hg.CG(tol=1e-10).solve(hg.Operator(spd(SPECTRA["spread"]).matmul, approximate=refuse), rhs())
    assert found.remark == "iterated on the exact product, because there is none today"
    assert found.converged


def test_damping_holds_for_the_approximation_too():
    A = spd(torch.cat([torch.tensor([-0.5]), torch.linspace(0.5, 3.0, N - 1)]))
    found = hg.CG(tol=1e-10).solve(near(A).shifted(1.0), rhs())
    assert found.remark == "iterated on the rounded matrix"
    assert (found.x - torch.linalg.solve(A + torch.eye(N), rhs())).norm() <= 1e-8 * found.x.norm()


def test_damping_that_the_format_of_the_approximation_cannot_hold():
    A, damping = spd(SPECTRA["spread"]), 1e70
    found = hg.CG(tol=1e-10).solve(near(A).shifted(damping), rhs())
    assert (
        found.remark == "iterated on the exact product, because a damping of 1.0e+70 is infinite in the rounded matrix"
    )
    torch.testing.assert_close(found.x, rhs() / damping)


def inexact(A: torch.Tensor, error: float) -> hg.Operator:
    """A with products that have a random relative error."""
    generator = torch.Generator().manual_seed(0)

    def product(v):
        noise = torch.randn(v.shape, generator=generator, dtype=v.dtype)
        return A @ v + error * torch.linalg.matrix_norm(A, 2) * v.norm() * noise / noise.norm()

    return hg.Operator(product, inaccuracy=lambda: error)


@pytest.mark.parametrize("name", ["spread", "condition 1e3"])
def test_cg_goes_no_further_than_its_products_resolve(name):
    A = spd(SPECTRA[name])
    b = rhs(len(A))
    found = hg.CG(max_iter=500, tol=1e-10).solve(inexact(A, 2.0**-7), b)
    assert found.status in ("stagnated", "max_iter")
    true = ((b - A @ found.x).norm() / b.norm()).item()
    assert true < 0.5
    assert found.residual > 1e-3


def test_curvature_that_errors_of_the_products_do_not_explain_is_an_error():
    A = torch.diag(torch.linspace(-0.5, 1.0, 20))
    with pytest.raises(hg.IndefiniteError, match="met curvature"):
        hg.CG().solve(inexact(A, 2.0**-7), rhs(20))


def test_a_neumann_series_ends_where_its_products_end():
    A = torch.diag(torch.linspace(0.5, 1.0, 20))
    found = hg.Neumann(num_terms=500, tol=1e-10, scale=1.0).solve(inexact(A, 1e-3), rhs(20))
    assert found.status == "stagnated"
    assert 1e-5 < found.residual < 1e-2


def test_an_inexact_product_that_is_not_finite_is_refused():
    A, products = torch.diag(torch.linspace(0.5, 1.0, 20)), iter([1.0, 1.0, float("nan")])
    with pytest.raises(hg.NonFiniteError, match="Product 3 with A"):
        hg.CG(tol=1e-10).solve(hg.Operator(lambda v: next(products) * (A @ v), inaccuracy=lambda: 1e-3), rhs(20))


@pytest.mark.parametrize("size", [2.0**-30, 1.0, 2.0**30])
def test_a_rounded_operator_is_left_where_rounding_hides_the_residual(size):
    A = torch.diag(torch.linspace(1.0, 1e3, 200, dtype=torch.float32))
    b = size * rhs(len(A)).float()
    rounded = hg.Operator(lambda v: A @ v, is_rounded=True)
    cycle = hg.CG().cycle(rounded, None, b.clone(), 0.0, 10_000)
    assert 20 < cycle.num_matvecs < 1000
    eps = torch.finfo(torch.float32).eps
    assert (b - A @ cycle.d).norm() <= 100 * eps * torch.linalg.matrix_norm(A, 2) * cycle.d.norm()
