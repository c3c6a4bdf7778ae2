"""single_loop: the contestants of hyper-cleaning run, and its table reads their records at the right time."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import hypergrad as hg
from experiments.single_loop.cleaning import CONTESTANTS, run
from experiments.single_loop.cleaning_references import small_cnn, trained_on_each
from experiments.single_loop.cleaning_table import at, closed, first_above, show

HISTORY = {"cpu": [1.0, 3.0, 8.5, 11.0], "test": [0.2, 0.80, 0.82, 0.81], "f1": [0.0, 0.9, 0.91, 0.92]}
CHOSEN = ["SOBA", "SOBA, λ by SGD", "MASOBA", "F2SA"]


@pytest.fixture(scope="module")
def data():
    return hg.Splits(*(hg.Split(X[:150], y[:150]) for X, y in hg.digits()))


@pytest.mark.parametrize("name", CHOSEN)
def test_each_method_runs_on_batches(name, data):
    contestant = replace(CONTESTANTS["linear"][name], outer_steps=20, batch_size=32, dev_sample=32, record_every=10)
    found = run(data, contestant, None, seed=0)
    assert found["step"] == [0, 10, 20]
    assert found["cpu"] == sorted(found["cpu"])
    assert found["dev"][-1] < found["dev"][0] - 0.1


def test_networks_are_trained_on_each_part():
    small = [nn.Linear(64, 10) for _ in range(2)]
    found = trained_on_each(hg.digits(), small.pop, l2=1e-4, seed=0, steps=300)
    assert found["baseline"]["test"] < found["oracle"]["test"] - 0.02
    assert found["baseline"]["test"] < found["dev alone"]["test"] - 0.02


def test_the_network_has_the_stated_size():
    assert sum(w.numel() for w in small_cnn().parameters()) == 11274
    assert small_cnn()(torch.zeros(2, 784)).shape == (2, 10)


def test_records_are_read_at_their_time(capsys):
    assert at(HISTORY, 9) == {"cpu": 8.5, "test": 0.82, "f1": 0.91}
    assert at(HISTORY, 3.0)["test"] == 0.80
    assert at(HISTORY, math.inf)["test"] == 0.81
    assert at(HISTORY, 0.5)["cpu"] == 1.0
    assert first_above(HISTORY, 0.815) == 8.5
    assert math.isnan(first_above(HISTORY, 0.83))
    references = {"oracle": {"test": 0.84, "cpu": 1.0}, "baseline": {"test": 0.80, "cpu": 1.0}}
    assert closed(references, 0.83) == pytest.approx(75)
    show("linear", {"0": {"references": references, "runs": {"SOBA": HISTORY}}})
    assert "0.8200 ± 0.0000" in capsys.readouterr().out
