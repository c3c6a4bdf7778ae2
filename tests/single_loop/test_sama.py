"""SAMA against the derivative of one step of the solver, by second derivatives."""

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg
from hypergrad.core.autodiff import flatten, leaves
from hypergrad.core.cost import Spent

SOLVERS = {
    "descent": hg.GradientDescent(lr=0.1),
    "momentum": hg.Momentum(lr=0.05, momentum=0.5, nesterov=True),
    "adam": hg.Adam(lr=0.02),
    "adamw with a schedule": hg.AdamW(lr=hg.InverseRoot(base=0.1), weight_decay=0.1),
}


def one_step(problem, solver, state, hparams, t):
    """The state after step t, and d/dλ of the outer loss there, both losses times the weights of their batches."""
    hp = leaves(hparams)
    w = leaves(state["params"])
    g = problem.inner_place(t).weight * problem.inner_loss(w, hp, problem.inner_batch(t))
    grad = dict(zip(w, torch.autograd.grad(g, tuple(w.values()), create_graph=True), strict=True))
    after = solver.update({**state, "params": w}, grad, solver.coefficients_at(hp, t, w), t)
    f = problem.outer_place(t).weight * problem.outer_loss(after["params"], hp, problem.outer_batch(t))
    wrt_hp = torch.autograd.grad(f, tuple(hp.values()))
    after = {group: {name: x.detach() for name, x in tensors.items()} for group, tensors in after.items()}
    return after, dict(zip(hp, wrt_hp, strict=True))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_is_the_derivative_of_one_step(solver):
    problem = LeastSquares()
    hparams, params, carry = problem.init_hparams(), problem.init_params(), None
    state = solver.init(params)
    for t in range(7):
        found = hg.SingleLoop(method=hg.SAMA(solver=solver)).estimate(
            problem, hparams, params, outer_step=t, inner_step=t, carry=carry
        )
        params, carry = found.params, found.carry
        state, grad = one_step(problem, solver, state, hparams, t)
        torch.testing.assert_close(params, state["params"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.grad, grad, rtol=1e-8, atol=1e-8)


def test_is_the_first_hypergradient_of_one_unrolled_step():
    problem = hg.Quadratic()
    hparams, params = problem.init_hparams(), problem.init_params()
    unrolled = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=1)
    exact = unrolled.estimate(problem, hparams, params).grad
    found = hg.SingleLoop(method=hg.SAMA(solver=hg.GradientDescent(lr=0.1))).estimate(problem, hparams, params).grad
    torch.testing.assert_close(flatten(found), flatten(exact), rtol=1e-8, atol=1e-8)


def test_cost():
    problem, spent = LeastSquares(), Spent()
    estimator = hg.SingleLoop(method=hg.SAMA(solver=hg.Adam(lr=0.1)))
    problem_at = problem.init_hparams(), problem.init_params()
    carry = estimator.estimate(problem, *problem_at).carry
    with spent.counting():
        found = estimator.estimate(problem, *problem_at, carry=carry)
    assert (spent.gradients, spent.matvecs, found.num_matvecs) == (3, 0, 0)


def test_the_step_of_the_differences_is_positive():
    with pytest.raises(ValueError, match=r"SAMA.step must be greater than 0"):
        hg.SAMA(step=0.0)
