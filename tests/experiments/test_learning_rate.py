import pytest
import torch
from tables import grad_of, relative_error, synthetic

import hypergrad as hg
from experiments.learning_rate.table import by_lbfgs, by_sgd, line_search, problem_of
from hypergrad.core.autodiff import central_difference
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.training import Training


@pytest.mark.parametrize("num_steps", [1, 10])
def test_the_gradient_by_the_step_size_is_that_of_differences(num_steps):
    problem = problem_of(seed=0)
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr="rate"), inner_steps=num_steps)
    hparams = problem.init_hparams()
    found = estimator.estimate(problem, hparams, problem.init_params())

    def reached(hp):
        w = Training(solver=estimator.solver, steps=num_steps).run(problem, hp, problem.init_params()).params
        return problem.outer_loss(w, hp, None)

    truth = central_difference(reached, hparams, {"rate": torch.tensor(1.0)}, step=1e-5)
    assert found.grad["rate"].item() == pytest.approx(truth.item(), rel=1e-7)
    assert found.outer_loss == found.stats["inner_loss"]


def test_one_step_is_known_in_closed_form():
    """F(ρ) = g(w₀ − ρ ∇g) is a parabola with its minimum at ‖∇g‖²/∇gᵀH∇g."""
    problem = problem_of(seed=1)
    ridge = problem.problem
    start, hp = problem.init_params(), ridge.init_hparams()
    slope = grad_of(lambda w: ridge.inner_loss(w, hp, None), start)["weight"]
    X = ridge.get_buffer("X")
    curvature = 2 * ((X @ slope).square().mean() + hp["l2"] * slope @ slope)
    best = (slope @ slope / curvature).item()
    assert line_search(problem, 1, 0.24, count=20) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(("optimizer", "num_steps"), [("sgd", 3), ("lbfgs", 10)])
def test_descent_ends_within_a_percent_of_the_line_search(optimizer, num_steps):
    best = line_search(problem_of(seed=0), num_steps, 0.24, count=40)
    found = by_sgd(0, num_steps, 60).last if optimizer == "sgd" else by_lbfgs(0, num_steps).best
    assert found.hparams["rate"].item() == pytest.approx(best, rel=1e-2)


def test_an_implicit_estimator_cannot_tune_it():
    problem = problem_of(seed=0)
    estimator = hg.Implicit(solver=hg.GradientDescent(lr="rate"), inner_steps=10)
    with pytest.raises(hg.UnusedHyperparameterError, match="use Unrolled"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_mini_batches_and_further_coefficients_are_passed_on():
    class Batched(hg.Ridge):
        def inner_batch(self, step):
            return step

        def inner_loss(self, params, hparams, batch):
            return (1 + 0.1 * batch) * super().inner_loss(params, hparams, batch)

    tuned = {"rate": hg.Hyperparameter(0.05), "beta": hg.Hyperparameter(0.5)}
    problem = hg.LearningToLearn(Batched(synthetic(0), l2=0.3), tuned)
    estimator = hg.Unrolled(solver=hg.Momentum(lr="rate", momentum="beta"), inner_steps=4)
    hparams, start = problem.init_hparams(), problem.init_params()
    found = estimator.estimate(problem, hparams, start, outer_step=3)

    def reached(hp):
        state = estimator.solver.init(start)
        for t in range(4):
            state = Dynamics(problem, estimator.solver, hp).transition(state, t)
        return problem.outer_loss(state["params"], hp, problem.outer_batch(3))

    assert relative_error(found.grad, grad_of(reached, hparams)) < 1e-10


def test_a_kink_is_refused():
    with pytest.raises(ValueError, match="needs a smooth inner loss, but Lasso"):
        hg.LearningToLearn(hg.Lasso(synthetic(0)), {"rate": hg.Hyperparameter(0.05)})
