"""The condition number that a solve estimates, and the warnings that contain it."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from spectra import ITERATIVE, Counted, rhs, spd

import hypergrad as hg
from hypergrad.estimator.inexact import inexactness
from hypergrad.linsolve.cg import Prepared
from hypergrad.linsolve.lanczos import Lanczos

EXPONENTS = pytest.mark.parametrize("exponent", range(1, 9))
SIZE = 50


def at_condition(exponent):
    return spd(torch.logspace(-exponent, 0, SIZE, dtype=torch.float64))


@EXPONENTS
def test_cg_that_converged_knows_it(exponent):
    found = hg.CG(max_iter=5000, tol=1e-6).solve(Counted(at_condition(exponent)), rhs(SIZE))
    assert found.converged
    assert 0.5 <= found.condition / 10.0**exponent <= 1 + 1e-6


@EXPONENTS
@pytest.mark.parametrize("definite", [True, False], ids=["cholesky", "lu"])
def test_a_factorisation_knows_it(exponent, definite):
    found = hg.Dense(definite=definite).solve(Counted(at_condition(exponent)), rhs(SIZE))
    assert 0.5 <= found.condition / 10.0**exponent <= 1 + 1e-6


@pytest.mark.parametrize("max_iter", [1, 4, 12])
def test_cg_that_did_not_converge_knows_it_from_below(max_iter):
    A, b = at_condition(3), rhs(SIZE)
    found = hg.CG(max_iter=max_iter, tol=0.0).solve(Counted(A), b)
    K = torch.linalg.qr(torch.stack([torch.linalg.matrix_power(A, k) @ b for k in range(max_iter)], dim=1)).Q
    ritz = torch.linalg.eigvalsh(K.T @ A @ K)
    assert found.condition == pytest.approx((ritz[-1] / ritz[0]).item(), rel=1e-8)


def test_with_a_preconditioner_it_is_that_of_the_product():
    A, scale = at_condition(4), torch.logspace(-2, 2, SIZE, dtype=torch.float64)
    scaled = scale[:, None] * A * scale
    cg = hg.CG(max_iter=5000, tol=1e-8, preconditioner=Prepared(lambda v: v / scale**2))
    assert cg.solve(Counted(scaled), rhs(SIZE)).condition == pytest.approx(1e4, rel=1e-3)


@pytest.mark.parametrize("preconditioner", [None, hg.Nystrom(rank=4)], ids=["plain", "Nyström"])
def test_fused_iterations_know_the_same(preconditioner):
    A = at_condition(3)
    fused = hg.Operator(A.matmul, compile=lambda f: partial(f, A.matmul), dtype=A.dtype)
    cg = hg.CG(max_iter=500, tol=1e-8, preconditioner=preconditioner)
    found, plain = cg.solve(fused, rhs(SIZE)), cg.solve(A.matmul, rhs(SIZE))
    assert found.condition == pytest.approx(plain.condition, rel=1e-6)


def test_an_approximation_that_is_dropped_says_nothing_of_it():
    A, other = at_condition(2), at_condition(6)
    near = hg.Operator(lambda v: other @ v, dtype=torch.float64, name="another matrix")
    found = hg.CG(max_iter=5000, tol=1e-8).solve(hg.Operator(A.matmul, approximate=lambda: near), rhs(SIZE))
    assert "went on with the exact product" in found.remark
    assert found.condition == pytest.approx(1e2, rel=1e-3)


def test_where_nobody_knows_it_it_is_nan():
    A = at_condition(1)
    for name in ("neumann", "minres", "gmres"):
        assert math.isnan(ITERATIVE[name].solve(Counted(A), rhs(SIZE)).condition)
    cg, columns = hg.CG(), torch.stack([rhs(SIZE), rhs(SIZE).flip(0)], dim=1)
    assert math.isnan(cg.solve(Counted(A), columns).condition)
    truth = torch.linalg.solve(A, rhs(SIZE))
    assert math.isnan(cg.solve(Counted(A), rhs(SIZE), truth).condition)  # there was no iteration
    assert Lanczos([1.0, -1.0], [0.5, 0.5]).ends() is Lanczos().ends() is None


@EXPONENTS
def test_the_warning_of_an_ill_conditioned_system_names_it(exponent):
    problem = hg.Quadratic(size=SIZE, condition=10.0**exponent, curvature=1.0, penalty=1e-12)
    hparams = problem.init_hparams()
    solved = hg.Implicit(inner_steps=0, linsolve=hg.CG(tol=1e-6, max_iter=5000), error_bar=False)
    found = solved.estimate(problem, hparams, problem.solution(hparams))
    condition, residual = float(found.stats["adjoint_condition"]), float(found.stats["adjoint_residual"])
    assert found.stats["adjoint_status"] == "converged"
    assert 0.5 <= condition / 10.0**exponent <= 1 + 1e-6
    told = inexactness(found)
    if condition * residual <= 1:
        assert told == {}
        assert exponent < 8
    else:
        assert f"a condition number κ of {condition:.1e}, a relative residual of" in told["adjoint_condition"]
        assert told["adjoint_condition"].endswith("Tighten the linear solver's tol, or add damping.")
        assert exponent > 5

    unsolved = replace(solved, linsolve=hg.CG(tol=1e-6, max_iter=4))
    found = unsolved.estimate(problem, hparams, problem.solution(hparams))
    (sentence,) = inexactness(found).values()
    assert f"products, at a condition number κ of {found.stats['adjoint_condition']:.1e} or more." in sentence
    assert "or add damping" in sentence


def test_without_it_the_warning_does_without():
    problem = hg.Quadratic(size=SIZE, condition=1e3)
    hparams = problem.init_hparams()
    short = hg.Implicit(inner_steps=0, linsolve=hg.GMRES(max_iter=3), error_bar=False)
    (sentence,) = inexactness(short.estimate(problem, hparams, problem.solution(hparams))).values()
    assert "after 3 products. Give the linear solver more products" in sentence
