"""Numbers that the dtype of the parameters cannot hold are refused by name."""

from functools import partial

import pytest
import torch

import hypergrad as hg


class Square(hg.InnerProblem):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def init_params(self):
        return {"w": torch.ones(3, dtype=self.dtype)}

    def hyperparameters(self):
        return {"l": hg.Hyperparameter(0.5)}

    def inner_loss(self, params, hparams, batch):
        w = params["w"]
        return (w - 1).square().sum() + hparams["l"] * w.square().sum()

    def outer_loss(self, params, hparams, batch):
        return params["w"].sum()


def estimate(estimator, dtype=torch.float32):
    problem = Square(dtype)
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize("lr", [1e60, 1e-60])
@pytest.mark.parametrize("kind", [hg.Unrolled, hg.Forward, hg.Implicit])
def test_a_learning_rate_out_of_range(lr, kind):
    with pytest.raises(ValueError, match=r"GradientDescent.lr = 1e.* in torch.float32.*use float64"):
        estimate(kind(solver=hg.GradientDescent(lr=lr), inner_steps=3))


def test_damping_out_of_range():
    with pytest.raises(ValueError, match=r"Implicit.damping = 1e-90 is 0 in torch.float32"):
        estimate(hg.Implicit(inner_steps=0, damping=1e-90))


def test_an_implicit_estimate_of_parameters_in_bfloat16():
    with pytest.raises(
        ValueError, match=r"parameters in torch.float32 or torch.float64, but they are in torch.bfloat16"
    ):
        estimate(hg.Implicit(inner_steps=0, linsolve=hg.Dense()), torch.bfloat16)


class Huge(Square):
    def inner_loss(self, params, hparams, batch):
        return 1e30 * super().inner_loss(params, hparams, batch)


@pytest.mark.parametrize("solver", [hg.Adam(), hg.AdamW(weight_decay=0.0), hg.Adagrad(), hg.RMSprop()], ids=str)
@pytest.mark.parametrize("kind", [hg.Unrolled, hg.Forward, hg.Implicit])
def test_gradients_whose_squares_are_infinite(solver, kind):
    problem = Huge(torch.float32)
    with pytest.raises(ValueError, match=r"squares the gradient, whose norm of .*e\+30"):
        kind(solver=solver, inner_steps=3).estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize("kind", [hg.Unrolled, hg.Forward])
def test_gradient_descent_needs_no_squares(kind):
    huge, plain = Huge(torch.float32), Square(torch.float32)
    found, wanted = (
        kind(solver=hg.GradientDescent(lr=lr), inner_steps=3).estimate(p, p.init_hparams(), p.init_params())
        for p, lr in ((huge, 1e-31), (plain, 0.1))
    )
    torch.testing.assert_close(found.grad["l"], wanted.grad["l"], rtol=1e-5, atol=0)


class Cubic(hg.InnerProblem):
    """(w − 2)²/2 + l w³/3, whose minimum at l = 1 is w = 1."""

    def init_params(self):
        return {"w": torch.tensor([1.0])}

    def hyperparameters(self):
        return {"l": hg.Hyperparameter(1.0)}

    def inner_loss(self, params, hparams, batch):
        w = params["w"].sum()
        return (w - 2) ** 2 / 2 + hparams["l"] * w**3 / 3

    def outer_loss(self, params, hparams, batch):
        return params["w"].sum()


def test_the_bar_covers_what_differences_leave_out_of_the_mixed_product():
    problem = Cubic()
    estimator = hg.Implicit(inner_steps=0, linsolve=hg.Dense(), product=hg.CentredDifferences(step=0.1))
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    # φ = w − 2 + l w², so at l = 1 it is dF/dl = dw/dl = −w²/(1 + 2 l w) = −1/3. Differences give w² + h²/3 for w².
    error = abs(found.grad["l"].item() + 1 / 3)
    assert error == pytest.approx(0.1**2 / 9, rel=1e-3)
    assert error <= float(found.stats["error_estimate"]) <= 10 * error


class Small(Square):
    def inner_loss(self, params, hparams, batch):
        return 1e-30 * super().inner_loss(params, hparams, batch)


SQUARING = [hg.Adam, partial(hg.AdamW, weight_decay=0.0), hg.Adagrad, hg.RMSprop]


@pytest.mark.parametrize("solver", SQUARING)
@pytest.mark.parametrize("kind", [hg.Unrolled, hg.Forward, hg.Implicit])
def test_gradients_whose_squares_are_zero(solver, kind):
    problem = Small(torch.float32)
    with pytest.raises(ValueError, match=r"norm of .*e-30 .* too small for that .* eps = 1.0e-15 .* 3e-11 or more"):
        kind(solver=solver(eps=1e-15), inner_steps=3).estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize("solver", SQUARING)
def test_squares_that_are_zero_beside_a_large_eps(solver):
    found, wanted = (
        hg
        .Forward(solver=solver(eps=1e-10, lr=1e20), inner_steps=3)
        .estimate(problem, problem.init_hparams(), problem.init_params())
        .grad["l"]
        for problem in (Small(torch.float32), Small(torch.float64))
    )
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


class SmallWithRate(Small):
    def hyperparameters(self):
        return {**super().hyperparameters(), "lr": hg.Hyperparameter(1e29)}


def test_a_large_rate_that_is_tuned_by_forward_mode():
    problem, solver = SmallWithRate(torch.float32), hg.GradientDescent(lr="lr")
    given = problem, problem.init_hparams(), problem.init_params()
    with pytest.raises(ValueError, match=r"At lr = 1.0e\+29 and a gradient norm of .*e-30 .* use Unrolled"):
        hg.Forward(solver=solver, inner_steps=3).estimate(*given)
    double = SmallWithRate(torch.float64)
    found = hg.Unrolled(solver=solver, inner_steps=3).estimate(*given).grad
    exact = hg.Forward(solver=solver, inner_steps=3)
    wanted = exact.estimate(double, double.init_hparams(), double.init_params()).grad
    for name in found:
        torch.testing.assert_close(found[name].double(), wanted[name], rtol=1e-5, atol=0)
