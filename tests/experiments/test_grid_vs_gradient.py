import pytest
import torch
from tables import synthetic

import hypergrad as hg
from experiments.grid_vs_gradient.table import problem_of, searched

EXACT = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-11, linsolve=hg.CG(tol=1e-11))


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_a_tied_hypergradient_is_the_sum_over_its_group(groups):
    whole = hg.Ridge(synthetic(0), l2=0.3, per_feature=True)
    tied = hg.Tied(whole, name="l2", groups=groups)
    hparams = {"l2": torch.linspace(0.1, 0.5, groups)}
    found = EXACT.estimate(tied, hparams, tied.init_params()).grad["l2"]
    group = [j * groups // 5 for j in range(5)]
    each = whole.hypergradient({"l2": hparams["l2"][group]})["l2"]
    truth = torch.zeros(groups).index_add(0, torch.tensor(group), each)
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=0.0)


def test_the_spaces_are_nested():
    """The best with two penalties is no worse than with one, and the metrics are those of the problem."""
    one, two = (hg.Tied(hg.Ridge(synthetic(0), per_feature=True), name="l2", groups=d) for d in (1, 2))
    w = one.init_params()
    for at in (one.outer_loss, one.inner_loss):
        same = getattr(two, at.__name__)(w, {"l2": torch.tensor([0.2, 0.2])}, None)
        assert at(w, {"l2": torch.tensor([0.2])}, None) == same
    assert one.metrics(w, {"l2": torch.tensor([0.2])})["test_loss"] > 0


@pytest.mark.parametrize(
    ("name", "groups", "message"),
    [
        ("l1", 2, "must be one of l2, but it is 'l1'"),
        ("l2", 0, "from 1 to the length .* but it is 0"),
        ("l2", 6, r"but it is 6, and 'l2' has shape \(5,\)"),
    ],
)
def test_what_cannot_be_tied_is_refused(name, groups, message):
    with pytest.raises(ValueError, match=message):
        hg.Tied(hg.Ridge(synthetic(0), per_feature=True), name=name, groups=groups)


def test_the_larger_diabetes_data_has_64_features():
    small, large = hg.diabetes(seed=2), hg.diabetes(seed=2, quadratic=True)
    assert large.train.X.shape == (222, 64)
    torch.testing.assert_close(large.dev.X[:, :10], small.dev.X)
    torch.testing.assert_close(large.train.X.mean(0), torch.zeros(64), atol=1e-12, rtol=0.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_method_keeps_to_its_budget_and_lowers_the_dev_loss():
    found = searched(seed=0, groups=3, budget=10)
    assert set(found) == {"start", "gradient", "random", "TPE", "grid"}
    assert {name: row["evaluations"] for name, row in found.items() if name != "start"} == {
        "gradient": 5,
        "random": 10,
        "TPE": 10,
        "grid": 1 + 2**3,
    }
    for method in ("gradient", "random", "TPE", "grid"):
        assert found[method]["dev"] < found["start"]["dev"]
    assert "grid" not in searched(seed=0, groups=12, budget=4)
    assert problem_of(0, 12).init_hparams()["l2"].shape == (12,)
