"""init_scale: scales learned over draws of the weights are better on draws that were not seen."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.init_scale import table
from hypergrad.model.network import perceptron
from hypergrad.problem.supervised.supervised import on_splits


def test_learned_scales_train_better_from_other_draws(monkeypatch):
    for name, value in {"STEPS": 30, "OUTER_STEPS": 15, "START": 0.2}.items():
        monkeypatch.setattr(table, name, value)
    problem = on_splits(
        hg.digits(),
        model=perceptron(64, 10, (8, 8, 8), std=1.0),
        loss=cross_entropy,
        hyperparameters={"scale": hg.InitScale(init=0.2, per="tensor")},
        batch_size=100,
    )
    first, second = (table.drawn(problem, draw) for draw in (0, 1))
    assert not torch.equal(first["0.weight"], second["0.weight"])
    run = table.learned(problem, 0.1, seed=0)
    assert len(run["path"]) == 16
    assert run["path"][0] == pytest.approx([0.2] * 8)
    losses = [table.judged(problem, 0.1, scale)["dev_loss"] for scale in (run["path"][0], run["path"][-1])]
    assert losses[1] < losses[0] - 0.1
