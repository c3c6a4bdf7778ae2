"""hyper_cleaning: what the references are trained on."""

from importlib.util import find_spec
from itertools import count

import pytest
import torch
from torch import nn

import hypergrad as hg
from experiments.hyper_cleaning import network, network_figure
from experiments.hyper_cleaning.network_table import between, show
from experiments.hyper_cleaning.table import closed, fitted, references
from experiments.numbers import load


def test_the_references_are_trainings_on_parts_of_the_data():
    data = hg.Splits(*(hg.Split(X[:120], y[:120]) for X, y in hg.digits()))
    problem = hg.HyperCleaning(data, l2=1e-2)
    found = references(problem)
    rows = ~problem.is_wrong

    def trained_on(X: torch.Tensor, y: torch.Tensor, share: float) -> dict[str, float]:
        """The penalty is that of a mean over all examples."""
        other = hg.HyperCleaning(hg.Splits(hg.Split(X, y), data.dev, data.test), noise=2 / len(y), l2=1e-2 / share)
        other.y = y
        return fitted(other, {"weights": torch.ones(len(y))})

    assert found["oracle"]["dev"] == pytest.approx(trained_on(problem.X[rows], problem.y[rows], 0.5)["dev"], rel=1e-2)
    with pytest.warns(UserWarning, match="are in the train part too"):
        alone = trained_on(*data.dev, 1.0)
    assert found["dev alone"]["test"] == pytest.approx(alone["test"], abs=0.02)
    assert found["baseline"]["test"] < found["oracle"]["test"]
    assert closed(found | {"references": found}, found["oracle"]["test"]) == 100


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))


@pytest.mark.parametrize("name", network.ESTIMATORS)
@pytest.mark.filterwarnings("ignore:.*(not solved|not converged|did not)")
def test_each_estimator_of_the_network_runs_until_its_time_is_up(name, monkeypatch):
    if "FAC" in name and find_spec("curvlinops") is None:
        pytest.skip("needs the extra curvature")
    data = hg.Splits(*(hg.Split(X[:120], y[:120]) for X, y in hg.digits()))
    problem = hg.HyperCleaning(data, l2=1e-3, model=small(), batch_size=60)
    found = network.run(problem, network.ESTIMATORS[name][0], record_every=2, seconds=0.0)
    assert found["step"] == [0]
    ticks = count(step=0.01)
    monkeypatch.setattr("experiments.cpu.time.process_time", lambda: next(ticks))  # a look at it takes 0.01 s
    found = network.run(problem, network.ESTIMATORS[name][0], record_every=2, seconds=0.035)
    assert found["step"] == [0, 2, 4, 6]
    assert found["cpu"] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert found["dev"][-1] < found["dev"][0] + 0.1


def test_the_table_and_the_figure_of_the_network_read_its_records(capsys, monkeypatch):
    records = load("hyper_cleaning", "network")
    assert list(records) == ["0", "1", "2"]
    assert all(list(found["runs"]) == list(network.ESTIMATORS) for found in records.values())
    show(records)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("CG, 20 products", "oracle"))
    drawn = []
    monkeypatch.setattr(network_figure, "draw", lambda *given: drawn.append(given[0::2]))
    network_figure.main()
    assert drawn == [("hyper_cleaning", "network")]


def test_values_between_two_records_are_on_a_line():
    assert between({"cpu": [0.0, 8.0, 12.0], "test": [0.1, 0.7, 0.8]}, 10.0) == {"cpu": 10.0, "test": 0.75}
