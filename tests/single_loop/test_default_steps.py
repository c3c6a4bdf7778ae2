"""Runs whose steps are left to the library: the same as with the suggested numbers, and resumed to the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic

ROOT = Path(__file__).parents[2]


def trainer(method, optimizer, steps=6, callbacks=()):
    return hg.Trainer(
        problem=LeastSquares(),
        estimator=hg.SingleLoop(method=method),
        optimizer=optimizer,
        outer_steps=steps,
        callbacks=callbacks,
    )


@pytest.mark.parametrize("kind", [hg.SOBA, hg.MASOBA, hg.SABA, hg.AmIGO])
def test_without_a_solver_the_steps_are_the_suggested_ones(kind):
    steps = hg.step_sizes(LeastSquares(), num_batches=16)
    lr = float(f"{0.5 * steps.outer:.2g}")
    explicit = trainer(kind(solver=hg.GradientDescent(lr=steps.inner)), lambda u: torch.optim.SGD(u, lr=lr)).fit()
    found = trainer(kind(), hg.SuggestedSGD(factor=0.5)).fit()
    assert found.last.hparams["shift"].tolist() == explicit.last.hparams["shift"].tolist()
    assert all(torch.equal(found.last.params[name], w) for name, w in explicit.last.params.items())
    assert found.last.stats["adjoint_remark"] == (
        f"the step of w, and of v if none was given, is {steps.inner:.3g}, from the curvature at the start"
    )
    assert explicit.last.stats["adjoint_remark"] == ""
    cost = hg.step_sizes(LeastSquares(), outer=False)
    gradients = [result.last.num_gradients for result in (found, explicit)]
    products = [result.last.num_matvecs for result in (found, explicit)]
    assert gradients[0] - gradients[1] == steps.num_gradients + cost.num_gradients
    assert products[0] - products[1] == steps.num_matvecs + cost.num_matvecs


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_suggested_steps_are_as_good_as_a_search_on_a_quadratic(seed):
    """The gap of the best of 9 pairs of steps after 30 epochs is 4.8e-8 in the literature's grid."""
    problem, moves = BilevelQuadratic(seed=seed), 30 * 16
    result = hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=hg.SABA()),
        optimizer=hg.SuggestedSGD(),
        outer_steps=moves,
        record_every=moves,
    ).fit()
    assert problem.value(result.last.hparams)[0] - problem.optimum() <= 10 * 4.8e-8


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


@pytest.mark.slow
def test_the_experiment_runs_on_the_command_line(tmp_path):
    settings = ["outer_steps=4", "record_every=2", "exact_every=4", "optimizer.num_batches=2", "callback=[summary]"]
    done = subprocess.run(
        [sys.executable, "-m", "hypergrad.run", "experiment=single_loop_digits", *settings],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("summary.json")
    found = json.loads(path.read_text())
    assert found["last"]["loss/dev"] < found["first"]["loss/dev"]
