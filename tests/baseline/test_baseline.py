import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.baseline.search import METHODS, TPE, Grid, Random
from hypergrad.baseline.trials import Budget, search
from hypergrad.callback.jsonl import JSONLines

ROOT = Path(__file__).parent.parent.parent
ESTIMATOR = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", [Grid(), Random(), TPE()], ids=METHODS)
def test_every_method_finds_the_minimum_of_one_hyperparameter(method):
    problem = hg.Ridge(hg.diabetes(seed=3))
    result = search(problem, ESTIMATOR, method, Budget(trials=30))
    assert len(result.history) == 31
    assert result.first.outer_loss == pytest.approx(0.562683, abs=1e-6)
    truth = hg.fit(problem, ESTIMATOR, hg.LBFGSB, 12, progress=False).best.outer_loss
    assert truth <= result.best.outer_loss <= truth + 1e-3
    assert result.history[-1]["run/inner_steps"] == sum(row["inner/steps"] for row in result.history)
    again = search(problem, ESTIMATOR, method, Budget(trials=30))
    assert torch.equal(result.best.hparams["l2"], again.best.hparams["l2"])


def test_a_grid_covers_the_box():
    start = torch.tensor([1.0, -1.0])
    points = torch.stack(list(Grid(width=3.0).points(start, 9, [])))
    assert points.tolist() == [[a, b] for a in (-1.0, 1.0, 3.0) for b in (-3.0, -1.0, 1.0)]
    with pytest.raises(ValueError, match=r"A grid over 64 hyperparameters needs at least 2\^64 = 1.84e\+19 trials"):
        list(Grid().points(torch.zeros(64), 100, []))


def test_budgets():
    assert Budget.of("100") == Budget(trials=100)
    assert Budget.of("30s") == Budget(seconds=30)
    assert Budget.of("20000steps") == Budget(inner_steps=20000)
    for bad in ("much", "-3", "1.5", "infs"):
        with pytest.raises(ValueError, match="budget must be a number of trials"):
            Budget.of(bad)
    result = search(PROBLEMS["ridge"], ESTIMATOR, Random(), Budget(inner_steps=200))
    spent = [row["run/inner_steps"] for row in result.history]
    assert spent[-1] >= 200 > spent[-2]


def test_a_trial_that_cannot_be_computed_does_not_end_the_search(tmp_path):
    class Wall(hg.Ridge):
        def outer_loss(self, params, hparams, batch):
            return super().outer_loss(params, hparams, batch) * (math.nan if hparams["l2"] < 0.1 else 1)

    with pytest.warns(UserWarning, match=r"\d+ of 21 trials could not be computed"):
        result = search(Wall(hg.diabetes()), ESTIMATOR, Random(), Budget(trials=20), [JSONLines(tmp_path)])
    assert 5 < len(result.history) < 21
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(result.history)


def test_the_command_line(tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "hypergrad.baseline", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = call("experiment=ridge", "method=random", "budget=15")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "ridge-random").iterdir()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert f"warning: {16 - len(steps)} of 16 trials could not be computed" in done.stderr
    assert "test loss" in done.stdout
    assert "method must be one of grid, random, tpe, but it is 'magic'" in call("method=magic").stderr
