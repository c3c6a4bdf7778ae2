"""hyper_cleaning: what the references are trained on."""

import pytest
import torch

import hypergrad as hg
from experiments.hyper_cleaning.table import closed, fitted, references


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
