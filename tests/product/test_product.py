"""Products by centred differences against those by automatic differentiation."""

import math

import pytest
import torch
from tables import PROBLEMS, relative_error, synthetic
from torch.nn.functional import binary_cross_entropy_with_logits

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.problem.oracle import Oracle

EVERY_PROBLEM = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


class Logistic(hg.Ridge):
    """Third derivatives, so that a difference has an error in h."""

    def inner_loss(self, params, hparams, batch):
        w = params["weight"]
        return binary_cross_entropy_with_logits(self.X @ w, (self.y > 0).to(w)) + (hparams["l2"] * w**2).sum()


def somewhere(problem, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=generator).to(w) for name, w in problem.init_params().items()}


def both(problem, step=None):
    point = somewhere(problem)
    arguments = (Oracle(problem, problem.init_hparams()), point)
    v = flatten(somewhere(problem, seed=1))
    return hg.Reverse().linearize(*arguments), hg.CentredDifferences(step=step).linearize(*arguments), v


def error(found, truth):
    return ((found - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-2)])
@pytest.mark.parametrize("kind", ["quadratic", "logistic"])
def test_differences_agree_with_automatic_differentiation(kind, dtype, tolerance):
    problem = (hg.Quadratic(size=9) if kind == "quadratic" else Logistic(synthetic(0), per_feature=True)).to(dtype)
    exact, differences, v = both(problem)
    assert error(differences.product(v), exact.product(v)) <= tolerance
    assert torch.allclose(differences.phi, exact.phi)
    assert differences.evaluation.loss == pytest.approx(exact.evaluation.loss)
    found, truth = (
        {name: x for name, x in either.mixed(v).items() if x is not None} for either in (differences, exact)
    )
    assert relative_error(found, truth) <= tolerance


def test_the_error_falls_with_the_square_of_the_step():
    problem = Logistic(synthetic(0))
    errors = []
    for step in (1e-1, 1e-2):
        exact, differences, v = both(problem, step)
        errors.append(error(differences.product(v), exact.product(v)))
    assert math.log10(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


def test_the_product_with_zero_is_exactly_zero():
    _, differences, v = both(PROBLEMS["quadratic"])
    assert not differences.product(torch.zeros_like(v)).any()
    assert not any(x.any() for x in differences.mixed(torch.zeros_like(v)).values() if x is not None)


@EVERY_PROBLEM
def test_the_hypergradient_by_differences_is_the_closed_form(problem):
    hparams = problem.init_hparams()
    estimator = hg.Implicit(inner_steps=0, product=hg.CentredDifferences(), linsolve=hg.CG(tol=1e-7))
    found = estimator.estimate(problem, hparams, problem.solution(hparams))
    assert relative_error(found.grad, problem.hypergradient(hparams)) <= 1e-5


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride] (of the decorator)
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class NoSecondDerivative(hg.Ridge):
    def inner_loss(self, params, hparams, batch):
        residual = self.X @ params["weight"] - self.y
        return OnceDifferentiable.apply(residual).mean() + (hparams["l2"] * params["weight"] ** 2).sum()


def test_a_model_without_a_second_derivative_is_served():
    problem = NoSecondDerivative(synthetic(0))
    hparams = problem.init_hparams()
    estimator = hg.Implicit(inner_steps=0, product=hg.CentredDifferences(), linsolve=hg.CG(tol=1e-7))
    found = estimator.estimate(problem, hparams, problem.solution(hparams))
    assert relative_error(found.grad, problem.hypergradient(hparams)) <= 1e-6


def test_an_optimality_condition_of_ones_own_is_refused():
    class Own(hg.Quadratic):
        def optimality(self, params, hparams, batch):
            return super().optimality(params, hparams, batch)

    problem = Own(size=4)
    with pytest.raises(ValueError, match="CentredDifferences needs an optimality condition that is the gradient"):
        hg.Implicit(product=hg.CentredDifferences()).estimate(problem, problem.init_hparams(), problem.init_params())
    with pytest.raises(ValueError, match="step must be greater than 0"):
        hg.CentredDifferences(step=0.0)
