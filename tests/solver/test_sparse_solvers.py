"""Proximal gradient descent and coordinate descent: the same solutions with true zeros, and what they refuse."""

import pytest
import torch
from sparse_tables import PROBLEMS, SQUARED, few, solved, uneven
from tables import PROBLEMS as SMOOTH

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.training import Training


@pytest.mark.parametrize("make", SQUARED.values(), ids=SQUARED)
def test_both_solvers_find_the_same_solution_and_zeros(make):
    problem = make()
    hparams = uneven(problem)
    found = Training(solver=hg.CoordinateDescent(), steps=200, tol=1e-12).run(problem, hparams, problem.init_params())
    assert found.report.status == "converged"
    theirs, ours = found.params["weight"], solved(problem, hparams)["weight"]
    assert torch.equal(theirs == 0, ours == 0)
    assert 0 < int((ours == 0).sum()) < len(ours)
    assert torch.allclose(theirs, ours, rtol=1e-8)


@pytest.mark.parametrize("name", ["lasso", "elastic-net-sparse-X-per-feature", "lasso-wide", "logistic-per-feature-l2"])
def test_acceleration_with_restarts_converges_linearly(name):
    problem = PROBLEMS[name]()
    hparams = uneven(problem)

    def decades(steps):
        end = Training(solver=hg.ProximalGradient(), steps=steps).run(problem, hparams, problem.init_params()).report
        return -torch.tensor(end.grad_norm).log10()

    assert decades(300) - decades(0) > 3
    assert decades(600) - decades(0) > 6


def test_a_learning_rate_as_a_number_and_as_a_hyperparameter():
    class Tuned(hg.Lasso):
        def hyperparameters(self):
            return super().hyperparameters() | {"lr": hg.Hyperparameter(0.05, constraint=hg.positive)}

    problem = Tuned(hg.diabetes(seed=1))
    hparams, start = problem.init_hparams(), problem.init_params()
    by_name = hg.Unrolled(solver=hg.ProximalGradient(lr="lr"), inner_steps=7).estimate(problem, hparams, start)
    by_number = Training(solver=hg.ProximalGradient(lr=0.05), steps=7).run(problem, hparams, start)
    assert torch.allclose(by_name.params["weight"], by_number.params["weight"], rtol=1e-14)
    step = 1e-6

    def dev_loss(lr):
        moved = Training(solver=hg.ProximalGradient(lr=lr), steps=7).run(problem, hparams, start).params
        return problem.outer_loss(moved, hparams, None).item()

    witness = (dev_loss(0.05 + step) - dev_loss(0.05 - step)) / (2 * step)
    assert by_name.grad["lr"].item() == pytest.approx(witness, rel=1e-6)


def test_too_large_a_learning_rate_is_told_its_bound():
    problem = hg.Lasso(hg.diabetes(seed=1))
    with pytest.raises(hg.DivergenceError, match="The learning rate 5.00e-01 is above"):
        hg.Implicit(solver=hg.ProximalGradient(lr=0.5)).estimate(problem, problem.init_hparams(), problem.init_params())


class WithoutBound(hg.Lasso):
    def smoothness(self, hparams):
        return None


REFUSED = {
    "a smooth solver": (
        hg.GradientDescent(),
        lambda: hg.Lasso(few()),
        "GradientDescent needs a smooth inner loss, but that of Lasso has an L1 penalty.*Use ProximalGradient",
    ),
    "a smooth problem": (
        hg.ProximalGradient(),
        lambda: SMOOTH["ridge"],
        "ProximalGradient trains an L1Problem.*but Ridge is not one. Use GradientDescent",
    ),
    "no known bound": (
        hg.ProximalGradient(),
        lambda: WithoutBound(few()),
        "lr = None uses 1/L, but WithoutBound.smoothness returns no L; give lr a number",
    ),
    "another loss": (
        hg.CoordinateDescent(),
        PROBLEMS["logistic"],
        "CoordinateDescent trains a Lasso or an ElasticNet, but the problem is a SparseLogistic",
    ),
}


@pytest.mark.parametrize(("solver", "make", "message"), REFUSED.values(), ids=REFUSED)
def test_a_problem_that_the_solver_cannot_train_is_refused(solver, make, message):
    problem = make()
    for kind in (hg.Implicit, hg.Unrolled) if solver.differentiable else (hg.Implicit,):
        with pytest.raises(ValueError, match=message):
            kind(solver=solver).estimate(problem, problem.init_hparams(), problem.init_params())


def test_unrolled_refuses_steps_that_cannot_be_differentiated():
    with pytest.raises(ValueError, match="a step of CoordinateDescent cannot be differentiated: .* Use Implicit"):
        hg.Unrolled(solver=hg.CoordinateDescent())


def test_coordinate_descent_needs_positive_penalties():
    problem = hg.Lasso(few(), per_feature=True)
    hparams = {"l1": torch.ones(70).index_fill(0, torch.tensor([3]), 0.0)}
    with pytest.raises(ValueError, match="every l1 to be positive, but the smallest is 0"):
        hg.Implicit(solver=hg.CoordinateDescent()).estimate(problem, hparams, problem.init_params())


def test_no_graph_is_kept_without_grad_mode():
    problem = hg.Lasso(few())
    hparams = {name: value.requires_grad_() for name, value in problem.init_hparams().items()}
    for solver in (hg.ProximalGradient(), hg.CoordinateDescent()):
        state = Dynamics(problem, solver, hparams).step(solver.init(problem.init_params()), 0)
        assert not any(flatten(tensors).requires_grad for tensors in state.values())
