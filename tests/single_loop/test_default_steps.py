"""Runs whose steps are left to the library: the same as with the suggested numbers, and resumed to the same bits."""

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg


def trainer(method, optimizer, steps=6, callbacks=()):
    return hg.Trainer(
        problem=LeastSquares(),
        estimator=hg.SingleLoop(method=method),
        optimizer=optimizer,
        outer_steps=steps,
        callbacks=callbacks,
    )


@pytest.mark.parametrize("kind", [hg.SOBA, hg.MASOBA, hg.AmIGO])
def test_without_a_solver_the_steps_are_the_suggested_ones(kind):
    steps = hg.step_sizes(LeastSquares(), num_batches=16)
    lr = float(f"{0.5 * steps.outer:.2g}")
    explicit = trainer(kind(solver=hg.GradientDescent(lr=steps.inner)), lambda u: torch.optim.SGD(u, lr=lr)).fit()
    found = trainer(kind(), hg.SuggestedSGD(factor=0.5)).fit()
    assert found.last.hparams["shift"].tolist() == explicit.last.hparams["shift"].tolist()
    assert all(torch.equal(found.last.params[name], w) for name, w in explicit.last.params.items())
    cost = hg.step_sizes(LeastSquares(), outer=False)
    gradients = [result.last.num_gradients for result in (found, explicit)]
    products = [result.last.num_matvecs for result in (found, explicit)]
    assert gradients[0] - gradients[1] == steps.num_gradients + cost.num_gradients
    assert products[0] - products[1] == steps.num_matvecs + cost.num_matvecs


def test_an_adjoint_step_of_its_own_stays():
    method = hg.SOBA(adjoint_lr=0.01).with_inner_step(0.2)
    assert (method.solver, method.adjoint_lr) == (hg.GradientDescent(lr=0.2), 0.01)
    assert method.with_inner_step(0.3) is method


def test_a_resumed_run_finds_the_step_in_its_state(tmp_path):
    whole = trainer(hg.MASOBA(), hg.SuggestedSGD(), callbacks=[hg.StateSaver(folder=tmp_path / "whole")]).fit()
    saver = hg.StateSaver(folder=tmp_path / "cut")
    trainer(hg.MASOBA(), hg.SuggestedSGD(), steps=3, callbacks=[saver]).fit()
    result = trainer(hg.MASOBA(), hg.SuggestedSGD(), callbacks=[saver]).fit(resume=tmp_path / "cut")
    for name, w in whole.last.params.items():
        assert torch.equal(result.last.params[name], w)
    rows = [{key: x for key, x in each.history[-1].items() if "seconds" not in key} for each in (whole, result)]
    assert rows[0] == rows[1]


def test_a_move_without_a_step_says_what_to_do():
    with pytest.raises(ValueError, match="SOBA.solver is None, .* use method.with_inner_step"):
        _ = hg.SOBA().known_solver


@pytest.mark.parametrize("setting", [{"factor": 0.0}, {"num_batches": 0}])
def test_a_suggestion_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=f"SuggestedSGD.{next(iter(setting))} must be"):
        hg.SuggestedSGD(**setting)
