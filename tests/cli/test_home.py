"""What a command leaves to use, and that it computes what Python computes."""

import json
import sys
from functools import partial

import pytest
import torch
from commands import call

import hypergrad as hg
from hypergrad import run

PROBLEM = """
import torch
from torch import nn

import hypergrad as hg


def net():
    return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 10))


def problem(seed):
    data = hg.digits(seed=seed)
    data = hg.Splits(*(hg.Split(X[:60], y[:60]) for X, y in data))
    effects = {"l2": hg.L2(init=1e-3, per="tensor")}
    return hg.on_splits(data, model=net(), loss=nn.functional.cross_entropy, hyperparameters=effects, batch_size=20)
"""
EXPERIMENT = """
# @package _global_
problem:
  _target_: my_problem.problem
  seed: ${seed}
defaults:
  - override /estimator: unrolled
  - override /solver: momentum
name: mine
outer_steps: 2
warm_start: false
estimator:
  inner_steps: 6
solver:
  lr: 0.05
optimizer:
  lr: 0.3
"""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_command_computes_what_python_computes_and_its_model_is_used_elsewhere(dtype, tmp_path, monkeypatch):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_problem.py").write_text(PROBLEM)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(EXPERIMENT)
    chosen = ("experiment=mine", f"dtype={dtype}", "hydra.run.dir=run", "callback.tensorboard=null")
    done = call(run.main, "--config-dir", "conf", *chosen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert dtype in done.stdout
    folder = tmp_path / "run"
    summary = json.loads((folder / "summary.json").read_text())

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_problem", raising=False)
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(0)
    import my_problem  # pyright: ignore

    result = hg.fit(
        my_problem.problem(0),
        hg.Unrolled(solver=hg.Momentum(lr=0.05), inner_steps=6),
        partial(torch.optim.Adam, lr=0.3),
        2,
        progress=False,
        warm_start=False,
    )
    ours, theirs = result.last.scalars(), summary["last"]
    assert {k: v for k, v in ours.items() if k != "run/seconds"} == {
        k: v for k, v in theirs.items() if k != "run/seconds"
    }
    hparams = hg.load_hparams(folder)
    assert hparams["l2"].dtype == getattr(torch, dtype)
    assert torch.equal(hparams["l2"], result.hparams["l2"])

    model, problem, best = my_problem.net(), my_problem.problem(0), summary["best"]
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True), strict=True)
    model.eval()
    with torch.no_grad():
        dev, test = model(problem.X_dev), model(problem.X_test)
    assert (dev.argmax(1) == problem.y_dev).double().mean().item() == pytest.approx(best["metric/dev_accuracy"])
    assert (test.argmax(1) == problem.y_test).double().mean().item() == pytest.approx(best["metric/test_accuracy"])
    assert torch.nn.functional.cross_entropy(test, problem.y_test).item() == pytest.approx(best["loss/test"], abs=1e-6)
