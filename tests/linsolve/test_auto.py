"""`Auto` makes the right choice and reports it."""

import re

import pytest
import torch
from spectra import SPECTRA, Counted, N, rhs, spd

import hypergrad as hg
from hypergrad.core.operator import CannotApproximateError

FEATURES, CLASSES = 60, 5
SHAPES = ((FEATURES, CLASSES),)


def uneven() -> torch.Tensor:
    """A Hessian of a linear model with features of different scale, and classes with a common null direction."""
    scale = torch.diag(torch.logspace(-2, 1, FEATURES, dtype=torch.float64))
    classes = torch.eye(CLASSES, dtype=torch.float64) - 1 / CLASSES
    return torch.kron(scale, classes) + 1e-3 * torch.eye(FEATURES * CLASSES, dtype=torch.float64)


def operator(A: torch.Tensor, **known) -> hg.Operator:
    return hg.Operator(Counted(A), shapes=SHAPES if len(A) == FEATURES * CLASSES else None, **known)


@pytest.mark.parametrize(
    ("A", "columns", "choice"),
    [
        (spd(SPECTRA["spread"]), 1, f"a factorisation of {N} parameters"),
        (
            uneven(),
            1,
            r"CG, because 5 iterations with Jacobi left a residual of .*, more than 0.1",
        ),
        (spd(torch.linspace(1, 2, 300)), 1, r"CG, because the curvature differs 1\.\d+-fold, no more than 20"),
        (
            spd(1 / torch.arange(1, 301) ** 2),
            1,
            r"CG preconditioned by Nyström, whose 20 eigenvalues fall 1,\d{3}-fold",
        ),
        (uneven(), 40, "a factorisation of 300 parameters for 40 right-hand sides"),
        (uneven(), 2, r"CG preconditioned by Jacobi, because the curvature differs [\d.e+]+-fold"),
    ],
    ids=["small", "uneven", "even", "steep", "many", "two"],
)
def test_the_choice_is_right_and_said(A, columns, choice):
    b = torch.randn(len(A), columns, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    b = b[:, 0] if columns == 1 else b
    matvec = operator(A)
    found = hg.Auto(tol=1e-9).solve(matvec, b)
    assert found.converged
    assert isinstance(matvec.matvec, Counted)
    assert found.num_matvecs == matvec.matvec.count
    assert (found.x - torch.linalg.solve(A, b)).norm() <= 1e-6 * found.x.norm()
    assert re.match(choice, found.remark), found.remark


def test_slices_that_differ_are_solved_in_fewer_products_than_by_plain_cg():
    b = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    b = (b - b.mean(1, keepdim=True)).reshape(-1)  # as the gradient of a cross-entropy is
    auto, plain = (solver.solve(operator(uneven()), b) for solver in (hg.Auto(tol=1e-9), hg.CG(max_iter=500, tol=1e-9)))
    assert auto.converged
    assert plain.converged
    assert auto.remark.startswith("CG preconditioned by Jacobi, because 5 iterations with Jacobi left a residual of")
    assert auto.num_matvecs <= 0.5 * plain.num_matvecs


def test_a_matrix_that_is_not_symmetric_goes_to_gmres():
    A = torch.triu(torch.ones(N, N, dtype=torch.float64)) + torch.eye(N)
    found = hg.Auto().solve(hg.Operator(A.matmul, symmetric=False), rhs())
    assert found.remark == "GMRES, because A is not symmetric"
    assert (A @ found.x - rhs()).norm() <= 1e-6 * rhs().norm()


@pytest.mark.parametrize("n", [N, 150])
def test_an_indefinite_matrix_is_refused(n):
    A = spd(torch.cat([torch.tensor([-0.5]), torch.linspace(0.5, 3.0, n - 1)]))
    with pytest.raises(hg.IndefiniteError, match="needs a positive definite matrix"):
        hg.Auto().solve(A.matmul, rhs(n))


def test_trials_are_of_the_approximation_and_the_solution_is_of_the_matrix():
    A, near = spd(torch.linspace(1, 2, 150)), Counted(spd(torch.linspace(1, 2, 150)) + 0.01 * torch.eye(150))
    b = rhs(150)
    found = hg.Auto(tol=1e-9).solve(
        hg.Operator(A.matmul, approximate=lambda: hg.Operator(near, dtype=torch.float64)), b
    )
    assert near.count >= 22  # of rank 20, and two probes
    assert (A @ found.x - b).norm() <= 1e-9 * b.norm()


def test_a_matrix_that_cannot_be_approximated_is_its_own_approximation():
    def approximate() -> hg.Operator:
        raise CannotApproximateError("no format is coarser")

    A, b = spd(torch.linspace(1, 2, 150)), rhs(150)
    matvec = Counted(A)
    found = hg.Auto(tol=1e-9).solve(hg.Operator(matvec, approximate=approximate), b)
    assert found.num_matvecs == matvec.count
    assert (A @ found.x - b).norm() <= 1e-9 * b.norm()


@pytest.mark.parametrize("n", [150, 2001])
def test_a_system_is_prepared_once_for_many_right_hand_sides(n):
    """By a factorisation up to 2000 parameters, and by iterations beyond."""
    d = torch.linspace(1, 2, n, dtype=torch.float64)
    solve = hg.Auto(tol=1e-10).inverse(lambda v: d * v, d)
    for b in (rhs(n), torch.ones(n, dtype=torch.float64)):
        torch.testing.assert_close(solve(b).x, b / d, rtol=0, atol=1e-9)
