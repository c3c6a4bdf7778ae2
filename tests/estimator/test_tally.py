"""The estimate of the truncation bias, against the bias."""

import math
import warnings
from functools import partial

import pytest
import torch
from tables import PROBLEMS, relative_error

import hypergrad as hg

STEPS = 400


def found(problem, tape, horizon):
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.09), tape=tape, inner_steps=STEPS, horizon=horizon)
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize("horizon", [10, 25, 80, 160])
@pytest.mark.parametrize("name", ["ridge-per-feature", "quadratic", "quadratic-stiff"])
def test_the_estimate_is_the_bias_within_a_factor_of_two(name, horizon):
    problem = PROBLEMS[name]
    truncated, whole = found(problem, hg.Graph(), horizon), found(problem, hg.Graph(), None)
    bias = relative_error(whole.grad, truncated.grad)
    assert bias / 2 <= float(truncated.stats["truncation_bias"]) <= 2 * bias
    assert whole.stats["truncation_bias"] == 0


@pytest.mark.parametrize("horizon", [4, 31, 33, 70, 127])
def test_all_tapes_estimate_the_same(horizon):
    problem = PROBLEMS["quadratic"]
    graph, store = (found(problem, tape, horizon).stats["truncation_bias"] for tape in (hg.Graph(), hg.Store()))
    assert graph == pytest.approx(store)


def test_three_steps_leave_nothing_to_extrapolate():
    assert math.isnan(float(found(PROBLEMS["quadratic"], hg.Graph(), 3).stats["truncation_bias"]))


@pytest.mark.parametrize(("horizon", "warned"), [(10, 1), (300, 0), (3, 0)])
def test_a_trainer_says_that_the_horizon_is_too_short(horizon, warned):
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.09), inner_steps=STEPS, horizon=horizon)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = hg.Trainer(
            problem=PROBLEMS["quadratic-stiff"],
            estimator=estimator,
            optimizer=partial(torch.optim.SGD, lr=1e-3),
            outer_steps=1,
            warm_start=False,
        ).fit()
    assert len(caught) == warned
    if warned:
        assert "biased, by some" in str(caught[0].message)
        assert "a horizon of 10 of 400 steps. Raise the horizon." in str(caught[0].message)
    assert ("hypergradient/truncation" in result.last.scalars()) == (horizon > 3)
