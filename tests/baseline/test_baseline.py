import json
import math
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import call
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.baseline.__main__ import main
from hypergrad.callback.jsonl import JSONLines

ROOT = Path(__file__).parent.parent.parent
ESTIMATOR = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-10)
METHODS = {"grid": hg.GridSearch(), "random": hg.RandomSearch(), "tpe": hg.TPE()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_finds_the_minimum_of_one_hyperparameter(method):
    problem = hg.Ridge(hg.diabetes(seed=3))
    result = hg.search(problem, ESTIMATOR, method, hg.Budget(trials=30))
    assert len(result.history) == 31
    assert result.first.outer_loss == pytest.approx(0.562683, abs=1e-6)
    truth = hg.fit(problem, ESTIMATOR, hg.LBFGSB, 12, progress=False).best.outer_loss
    assert truth <= result.best.outer_loss <= truth + 1e-3
    assert result.history[-1]["run/inner_steps"] == sum(row["inner/steps"] for row in result.history)
    again = hg.search(problem, ESTIMATOR, method, hg.Budget(trials=30))
    assert torch.equal(result.best.hparams["l2"], again.best.hparams["l2"])


def test_a_grid_covers_the_box():
    start = torch.tensor([1.0, -1.0])
    points = torch.stack(list(hg.GridSearch(width=3.0).points(start, 9, [])))
    assert points.tolist() == [[a, b] for a in (-1.0, 1.0, 3.0) for b in (-3.0, -1.0, 1.0)]
    endless = hg.GridSearch(width=2.0).points(torch.zeros(1), None, [])
    assert [next(endless).item() for _ in range(6)] == [-1.0, 1.0, -1.5, -0.5, 0.5, 1.5]
    with pytest.raises(ValueError, match=r"A grid over 64 hyperparameters needs at least 2\^64 = 1.84e\+19 trials"):
        list(hg.GridSearch().points(torch.zeros(64), 100, []))
    with pytest.raises(ValueError, match="but the budget is not a number of trials"):
        next(hg.GridSearch().points(torch.zeros(64), None, []))


def test_budgets():
    assert hg.Budget.of("100") == hg.Budget(trials=100)
    assert hg.Budget.of("30s") == hg.Budget(seconds=30)
    assert hg.Budget.of("20000steps") == hg.Budget(steps=20000)
    assert hg.Budget.of("2e4gradients") == hg.Budget(gradients=20000)
    for bad in ("much", "-3", "1.5", "infs", "nowhere:seconds", "nansteps"):
        with pytest.raises(ValueError, match="budget must be a number of trials"):
            hg.Budget.of(bad)
    result = hg.search(PROBLEMS["ridge"], ESTIMATOR, hg.RandomSearch(), hg.Budget(steps=200))
    spent = [row["run/inner_steps"] for row in result.history]
    assert spent[-1] >= 200 > spent[-2]


def test_a_budget_can_be_what_a_run_has_spent(tmp_path):
    adam = partial(torch.optim.Adam, lr=0.1)
    run = hg.fit(PROBLEMS["ridge"], ESTIMATOR, adam, 8, progress=False, callbacks=[JSONLines(tmp_path / "run")])
    last = run.history[-1]
    total = last["run/gradients"] + 2 * last["run/products"]
    assert hg.Budget.of(str(tmp_path / "run")) == hg.Budget(gradients=total)
    assert hg.Budget.of(f"{tmp_path / 'run'}:seconds") == hg.Budget(seconds=last["run/seconds"])
    assert hg.Budget.of(f"{tmp_path / 'run'}:steps") == hg.Budget(steps=last["run/inner_steps"])
    found = hg.search(PROBLEMS["ridge"], ESTIMATOR, hg.RandomSearch(), hg.Budget.of(str(tmp_path / "run")))
    spent = [row["run/gradients"] + 2 * row["run/products"] for row in found.history]
    assert spent[-1] >= total > spent[-2]
    JSONLines(tmp_path / "other").path.parent.mkdir()
    (tmp_path / "other" / "metrics.jsonl").write_text('{"step": 0, "run/seconds": 1.0}\n')
    with pytest.raises(ValueError, match="did not record run/gradients, run/products"):
        hg.Budget.of(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="holds 2 runs; name one, such as"):
        hg.Budget.of(str(tmp_path))
    (tmp_path / "other" / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="has recorded no step yet; wait for the first one"):
        hg.Budget.of(str(tmp_path / "other"))


class Counted(hg.Ridge):
    """Counts its gradients; a gradient takes a second."""

    count = 0

    def inner_loss_and_gradient(self, params, hparams, batch):
        type(self).count += 1
        return super().inner_loss_and_gradient(params, hparams, batch)


class CountedCG(hg.CG):
    """Counts the products of the solves of all its kind."""

    count = 0

    def solve(self, matvec, b, x0=None):
        found = super().solve(matvec, b, x0)
        CountedCG.count += found.num_matvecs
        return found


@pytest.mark.parametrize("side", ["run", "search"])
@pytest.mark.parametrize("solver", ["lbfgs", "newton", "gradient_descent"])
def test_a_run_and_a_search_count_alike(side, solver, monkeypatch):
    problem, cg = Counted(hg.diabetes(seed=1)), CountedCG()
    monkeypatch.setattr(Counted, "count", 0)
    monkeypatch.setattr(CountedCG, "count", 0)
    monkeypatch.setattr(time, "perf_counter", lambda: float(Counted.count))
    solvers = {"lbfgs": hg.LBFGS(), "newton": hg.Newton(linsolve=cg), "gradient_descent": hg.GradientDescent(lr=0.1)}
    estimator = hg.Implicit(solver=solvers[solver], linsolve=cg, inner_steps=300, error_bar=False)
    if side == "run":
        result = hg.fit(problem, estimator, partial(torch.optim.SGD, lr=0.1), 3, progress=False)
    else:
        result = hg.search(problem, estimator, hg.RandomSearch(width=1.0), hg.Budget(trials=3))
    last = result.history[-1]
    assert last["run/gradients"] == last["run/seconds"] == Counted.count > 0
    assert last["run/products"] == CountedCG.count
    assert (CountedCG.count > 0) == (side == "run" or solver == "newton")
    assert last["run/inner_steps"] == sum(row["inner/steps"] for row in result.history)


def test_a_sweep_of_coordinate_descent_counts_as_a_gradient():
    estimator = hg.Implicit(solver=hg.CoordinateDescent(sweeps=10), inner_tol=1e-8)
    result = hg.search(hg.Lasso(hg.diabetes(), l1=0.1), estimator, hg.RandomSearch(), hg.Budget(trials=0))
    row = result.history[0]
    looks = row["inner/steps"] + 2  # at the start, at w₀ for the tolerance, and after each step
    assert row["inner/steps"] <= row["run/gradients"] - looks <= 10 * row["inner/steps"]


def test_a_trial_that_cannot_be_computed_does_not_end_the_search(tmp_path):
    class Wall(hg.Ridge):
        def outer_loss(self, params, hparams, batch):
            return super().outer_loss(params, hparams, batch) * (math.nan if hparams["l2"] < 0.1 else 1)

    with pytest.warns(UserWarning, match=r"\d+ of 21 trials could not be computed"):
        result = hg.search(
            Wall(hg.diabetes()), ESTIMATOR, hg.RandomSearch(), hg.Budget(trials=20), [JSONLines(tmp_path)]
        )
    assert 5 < len(result.history) < 21
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(result.history)


def test_the_command_line(tmp_path):
    done = call(main, "experiment=ridge", "method=random", "budget=15", "baseline.width=8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "ridge-random").iterdir()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert f"warning: {16 - len(steps)} of 16 trials could not be computed" in done.stderr
    assert "test loss" in done.stdout
    assert "trial 0/15" in done.stdout
    assert "best (trial " in done.stdout
    assert "after" not in done.stdout
    assert "overfitted" not in done.stdout
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - ridge\n")
    done = call(main, "--config-dir", "conf", "experiment=mine", "method=grid", "budget=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wrong = call(main, "method=magic", f"budget={folder}", cwd=tmp_path).stderr
    assert "Could not find 'baseline/magic'" in wrong
    assert "grid\n\trandom\n\ttpe" in wrong


def test_a_wrong_budget_is_named_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["baseline", "experiment=ridge", "budget=much"])
    with pytest.raises(SystemExit, match="error: budget must be a number of trials"):
        main()
