"""AmIGO against a loop by hand, and its setting stocBiO against the Neumann series."""

from functools import partial

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.core.cost import Spent


@pytest.mark.parametrize("warm", [True, False])
def test_equals_a_loop_by_hand(warm):
    problem, T, Q, lr, lr_v, lr_hp, moves = LeastSquares(), 3, 2, 0.1, 0.07, 0.05, 50
    w, v, D_hp = torch.zeros(7), torch.zeros(7), torch.zeros(4)
    penalty, shift = problem.init_hparams().values()
    for k in range(moves):
        step = k * (T + Q + 1)
        for i in range(step, step + T):
            w = w - lr / (1 + k) ** 0.5 * problem.inner_terms(i, w, penalty, shift)[0]
        v, df_dw = v if warm else 0 * v, problem.outer_gradient(k, w, shift)
        for i in range(step + T, step + T + Q):
            v = v - lr_v * (problem.inner_terms(i, w, penalty, shift)[1] @ v + df_dw)
        D_hp = problem.direction((step + T + Q, k), w, v, penalty, shift)
        if k < moves - 1:
            penalty, shift = penalty * torch.exp(-lr_hp * penalty * D_hp[0]), shift - lr_hp * D_hp[1:]
    method = hg.AmIGO(
        solver=hg.GradientDescent(lr=hg.InverseRoot(base=lr)),
        adjoint_lr=lr_v,
        inner_steps=T,
        adjoint_steps=Q,
        warm_adjoint=warm,
    )
    result = hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=method),
        optimizer=lambda u: torch.optim.SGD(u, lr=lr_hp),
        outer_steps=moves - 1,
    ).fit()
    torch.testing.assert_close(flatten(result.last.params), w, rtol=0, atol=1e-12)
    torch.testing.assert_close(flatten(result.last.grad), D_hp, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.last.hparams, {"penalty": penalty, "shift": shift}, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_terms", [1, 4])
def test_a_cold_adjoint_is_that_many_terms_of_the_neumann_series(num_terms):
    problem = hg.Quadratic()
    hparams, params = problem.init_hparams(), problem.solution(problem.init_hparams())
    method = hg.AmIGO(solver=hg.GradientDescent(lr=0.2), inner_steps=1, adjoint_steps=num_terms, warm_adjoint=False)
    estimator = hg.SingleLoop(method=method)
    before = estimator.estimate(problem, hparams, params)
    # It must not see the v of the move before.
    found = estimator.estimate(problem, hparams, params, carry=before.carry)
    neumann = hg.Neumann(num_terms=num_terms, scale=0.2, tol=0.0)
    solver = hg.GradientDescent(lr=0.2)
    expected = hg.Implicit(solver=solver, linsolve=neumann, inner_steps=0, error_bar=False).estimate(
        problem, hparams, params
    )
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-12)


def test_adam_counts_its_own_steps():
    problem, T = hg.Quadratic(), 4
    hparams, params = problem.init_hparams(), problem.init_params()
    solver = hg.Adam(lr=0.05)
    state = solver.init(params)
    for step in range(3 * T):
        grads = torch.func.grad(problem.inner_loss)(state["params"], hparams, None)
        state = solver.update(state, grads, solver.coefficients_at(hparams, 0, params), step)
    method = hg.AmIGO(solver=solver, adjoint_lr=0.1, inner_steps=T, adjoint_steps=1)
    moved, carry = params, None
    for _ in range(3):
        found = hg.SingleLoop(method=method).estimate(problem, hparams, moved, carry=carry)
        moved, carry = found.params, found.carry
    torch.testing.assert_close(moved, state["params"], rtol=0, atol=1e-12)


def test_cost():
    problem, spent = LeastSquares(), Spent()
    estimator = hg.SingleLoop(method=hg.AmIGO(solver=hg.GradientDescent(), inner_steps=3, adjoint_steps=2))
    with spent.counting():
        found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert (estimator.inner_steps, spent.gradients, found.num_matvecs) == (6, 6, 3)


@pytest.mark.parametrize("setting", ["inner_steps", "adjoint_steps"])
def test_no_step_is_refused(setting):
    with pytest.raises(ValueError, match=f"AmIGO.{setting} must be at least 1, but it is 0"):
        partial(hg.AmIGO, **{setting: 0})()
