"""What single-loop methods do not serve, said with the reason and a remedy."""

from functools import partial
from typing import Any

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg

FIRST_ORDER = [hg.F2SA, hg.BOME, hg.MEHA, hg.SAMA]


class RootOfQuadratic(hg.Quadratic):
    """A condition φ that is not the gradient of the inner loss."""

    def optimality(self, params, hparams, batch):
        return {name: w - 1 for name, w in params.items()}


def tune(problem=None, *, method=None, **settings):
    estimator = hg.SingleLoop(method=method or hg.F2SA())
    trainer = hg.Trainer(**{
        "problem": problem or LeastSquares(),
        "estimator": estimator,
        "optimizer": partial(torch.optim.SGD, lr=0.01),
        "outer_steps": 1,
        **settings,
    })
    return trainer.fit()


@pytest.mark.parametrize("method", FIRST_ORDER)
@pytest.mark.parametrize("solver", [hg.LBFGS(), hg.Newton(), hg.ProximalGradient()], ids=lambda s: type(s).__name__)
def test_a_solver_that_takes_no_direction(method, solver):
    with pytest.raises(ValueError, match=f"{method.__name__} moves w along a direction of its own.*Use GradientDesc"):
        method(solver=solver)


@pytest.mark.parametrize("method", FIRST_ORDER)
def test_a_problem_that_is_no_minimisation(method):
    with pytest.raises(ValueError, match="solution of RootOfQuadratic is not where that is zero. Use Implicit"):
        tune(RootOfQuadratic(), method=method())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"optimizer": hg.LBFGSB}, "LBFGSB compares dev losses, but SingleLoop moves the parameters"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS compares dev losses, but SingleLoop moves the parameters"),
        ({"acceptance": hg.Acceptance()}, "Acceptance compares dev losses, but SingleLoop moves the parameters"),
        ({"warm_start": False}, "which warm_start=False would undo in the next"),
    ],
    ids=["lbfgsb", "lbfgs", "acceptance", "no warm start"],
)
def test_what_needs_one_loss_for_each_hparams(settings, match):
    with pytest.raises(ValueError, match=match):
        tune(**settings)


@pytest.mark.parametrize("method", [hg.F2SA(multiplier=200.0), hg.MEHA(multiplier=200.0)], ids=["f2sa", "meha"])
def test_a_precision_that_does_not_resolve_the_difference(method):
    problem = hg.Quadratic().float()
    with pytest.raises(ValueError, match="multiplier = 200, .* Take a multiplier below 128, better below 26"):
        tune(problem, method=method, precision="bf16-mixed")
    tune(problem, method=method, precision="float32")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: hg.F2SA(multiplier=0), "F2SA.multiplier must be greater than 0, but it is 0"),
        (lambda: hg.F2SA(growth=-0.1), "F2SA.growth must be at least 0, but it is -0.1"),
        (lambda: hg.F2SA(inner_steps=0), "F2SA.inner_steps must be at least 1, but it is 0"),
        (lambda: hg.BOME(barrier=0), "BOME.barrier must be greater than 0"),
        (lambda: hg.BOME(inner_steps=0), "BOME.inner_steps must be at least 1"),
        (lambda: hg.BOME(solver=None), "BOME.solver must be given, because w stays at a distance of its lr"),
        (lambda: hg.BOME(inner_lr=0), "BOME.inner_lr must be greater than 0"),
        (lambda: hg.MEHA(growth_power=0.5), "MEHA.growth_power must be below 0.5, but it is 0.5"),
        (lambda: hg.MEHA(smoothing=0), "MEHA.smoothing must be greater than 0"),
        (lambda: hg.SOBA(solver=hg.Adam()), "SOBA.adjoint_lr must be given with Adam, whose lr is no step along a"),
        (
            lambda: hg.F2SA(solver=hg.GradientDescent(lr="rate")),
            "cannot tune a coefficient of the solver, such as lr =",
        ),
    ],
)
def test_a_setting_out_of_range(make, match):
    with pytest.raises(ValueError, match=match):
        make()


class NewEachStep(LeastSquares):
    def at_outer_step(self, step):
        return NewEachStep()


class TunedStart(LeastSquares):
    def initial(self, params, hparams):
        return params


@pytest.mark.parametrize(
    ("problem", "match"),
    [
        (NewEachStep(), "NewEachStep has another one in each outer step"),
        (TunedStart(), "the initial parameters of Tun"),
    ],
    ids=["new in each step", "tuned start"],
)
def test_a_problem_without_one_solution_to_follow(problem, match):
    with pytest.raises(ValueError, match=match):
        hg.SingleLoop(method=hg.F2SA()).estimate(problem, problem.init_hparams(), problem.init_params())


def test_one_batch_or_two_is_a_bool():
    with pytest.raises(TypeError, match="F2SA.same_batch must be a bool"):
        hg.F2SA(same_batch=1)  # type: ignore[arg-type]


def test_a_hyperparameter_on_which_nothing_depends_is_named():
    X, y = torch.randn(20, 3), torch.randn(20)
    problem = hg.Supervised(
        model=torch.nn.Linear(3, 1),
        loss=torch.nn.functional.mse_loss,
        train=(X[:10], y[:10]),
        dev=(X[10:], y[10:]),
        hyperparameters={"l2": hg.L2(init=0.1), "lr": hg.Hyperparameter(0.1)},
    )
    estimator = hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=0.1)))
    with pytest.raises(hg.UnusedHyperparameterError, match="Nothing depends on the hyperparameter 'lr'"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_an_adjoint_whose_solution_the_parameters_do_not_follow_is_refused():
    with pytest.raises(ValueError, match="the weight_decay of GradientDescent leads elsewhere. Set it to 0"):
        hg.SOBA(solver=hg.GradientDescent(lr=0.1, weight_decay=0.1))
    with pytest.raises(ValueError, match="weight_decay, which draws w away from the minimum of the inner loss"):
        hg.BOME(solver=hg.GradientDescent(lr=0.01, weight_decay=0.1))
    name: Any = "l2"
    with pytest.raises(TypeError, match="adjoint_lr must be a number or a schedule over one, but it names 'l2'"):
        hg.SOBA(solver=hg.GradientDescent(lr=0.1), adjoint_lr=name)
