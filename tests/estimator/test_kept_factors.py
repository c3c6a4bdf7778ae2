"""Kronecker factors that are used for several outer steps."""

from functools import partial

import pytest
import torch
from layered_problems import NEEDS_CURVLINOPS, apart, linear, mlp, supervised

import hypergrad as hg
from hypergrad.callback.state_saver import StateSaver
from hypergrad.problem.supervised import layered

pytestmark = NEEDS_CURVLINOPS


@pytest.fixture
def made(monkeypatch):
    """The outer steps at which factors were made are counted in a list."""
    calls, make = [], layered.kronecker_layers

    def counted(*given):
        calls.append(None)
        return make(*given)

    monkeypatch.setattr(layered, "kronecker_layers", counted)
    return calls


def walk(problem, linsolve, steps, *, error_bar=False):
    """Estimates at a moving λ, each from the `carry` of the one before, which has been through a file."""
    estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=linsolve, inner_steps=5, error_bar=error_bar, damping=0.1)
    hparams, params, carry, found = problem.init_hparams(), problem.init_params(), None, []
    for k in steps:
        found.append(estimator.estimate(problem, hparams, params, outer_step=k, carry=carry))
        hparams = {name: 1.1 * x for name, x in hparams.items()}
        params, carry = found[-1].params, found[-1].carry
    return found


def test_factors_are_made_every_few_outer_steps(made):
    problem = supervised(mlp())
    found = walk(problem, hg.EKFAC(refresh=3), range(7))
    assert len(made) == 3
    assert found[-1].carry["kronecker"]["step"] == 6


def test_by_default_each_step_makes_its_own_and_carries_the_adjoint_alone(made):
    found = walk(supervised(linear()), hg.CG(preconditioner=hg.KFAC()), range(3), error_bar=True)
    assert len(made) == 3  # once for the solve and the error bar together
    assert all(isinstance(one.carry, torch.Tensor) for one in found)


def test_other_settings_do_not_use_them(made):
    problem = supervised(mlp())
    first, *_ = walk(problem, hg.KFAC(refresh=5), range(1))
    for linsolve, count in ((hg.KFAC(refresh=5), 1), (hg.EKFAC(refresh=5), 2), (hg.KFAC(refresh=5, fisher="mc"), 3)):
        estimator = hg.Implicit(linsolve=linsolve, inner_steps=5, error_bar=False, damping=0.1)
        estimator.estimate(problem, problem.init_hparams(), first.params, outer_step=1, carry=first.carry)
        assert len(made) == count


def test_the_adjoint_of_the_last_step_is_the_start_with_factors_and_from_older_states():
    problem = supervised(linear())
    linsolve = hg.CG(tol=1e-8, preconditioner=hg.EKFAC(refresh=5))
    estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=linsolve, inner_steps=100, error_bar=False)
    at = problem, problem.init_hparams(), problem.init_params()
    cold = estimator.estimate(*at)
    assert cold.carry is not None
    again = estimator.estimate(*at, outer_step=1, carry=cold.carry)
    older = estimator.estimate(*at, outer_step=1, carry=cold.carry["adjoint"])
    for warm in (again, older):
        assert int(warm.stats["num_matvecs"]) < int(cold.stats["num_matvecs"])
        assert apart(warm, cold) <= 1e-6


def test_a_resumed_run_goes_on_with_the_same_factors(tmp_path, made):
    def fit(folder, steps, resume=None):
        linsolve = hg.CG(preconditioner=hg.EKFAC(refresh=4))
        estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=linsolve, error_bar=False)
        return hg.Trainer(
            problem=supervised(linear()),
            estimator=estimator,
            optimizer=partial(torch.optim.SGD, lr=0.1),
            outer_steps=steps,
            callbacks=[StateSaver(folder)],
        ).fit(resume=resume)

    whole = fit(tmp_path / "whole", 6)
    assert len(made) == 2
    fit(tmp_path / "parts", 3)
    resumed = fit(tmp_path / "parts", 6, resume=tmp_path / "parts")
    assert len(made) == 4
    assert torch.equal(whole.hparams["l2"], resumed.hparams["l2"])
