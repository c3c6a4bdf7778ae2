"""influence: trainings side by side, and the linear datamodeling score."""

from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

import hypergrad as hg
from experiments.influence import cases, table
from experiments.influence.handed import read, reply
from experiments.influence.retraining import dev_losses, halves, trained
from experiments.influence.score import lds, spearman
from hypergrad.training.training import Training


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> cases.Case:
    """Digits, with few examples and steps."""
    monkeypatch.setattr(cases, "TRAIN", 60)
    return cases.Case("digits", lambda root: hg.digits(), cases.settings(0.1, 8, 12), l2=1e-3, dev=6, batch_size=20)


def test_rank_correlation_is_that_of_scipy():
    a, b = torch.randn(12, 3).round(decimals=1), torch.randn(12, 3).round()
    expected = [spearmanr(x, y)[0] for x, y in zip(a.T, b.T, strict=True)]
    torch.testing.assert_close(spearman(a, b), torch.tensor(expected, dtype=torch.float64))
    assert spearman(torch.ones(5, 1), torch.randn(5, 1)).item() == 0


def test_scores_that_are_the_changes_have_score_one():
    scores, members = torch.randn(4, 20), halves(20, 10)
    assert (members.sum(1) == 10).all()
    assert len(members.unique(dim=0)) == 10
    losses = 3 + (~members).to(scores) @ scores.T
    torch.testing.assert_close(lds(scores, members, losses), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(lds(-scores, members, losses), -torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("when", ["early", "end"])
def test_trainings_side_by_side_are_those_one_by_one(case: cases.Case, when: str):
    problem, setting, members = case.problem("", 0), case.settings[when], halves(60, 3)
    side = trained(problem, setting, 2.0 * members)
    for k, member in enumerate(members):
        hparams = problem.init_hparams() | {cases.WEIGHTS: 2.0 * member}
        alone = Training(solver=setting.solver, steps=setting.steps).run(problem, hparams, problem.init_params())
        for name, w in alone.params.items():
            torch.testing.assert_close(side[name][k], w)
    with torch.no_grad():
        first = {name: w[0] for name, w in side.items()}
        expected = problem.outer_loss(first, problem.init_hparams(), None)
    torch.testing.assert_close(dev_losses(problem, side)[0].mean(), expected)


def test_the_damping_is_one_by_the_time_of_training():
    assert cases.Setting(0.1, 30).damping == pytest.approx(0.1 / 3)
    falling = cases.Setting(hg.Cosine(base=0.1, steps=30), 30)
    assert falling.damping == pytest.approx(0.1 / sum(falling.solver.lr(t) for t in range(30)), rel=1e-5)  # pyright: ignore


def test_scores_are_measured_once_and_judged(case: cases.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("curvlinops")
    monkeypatch.setattr(table, "HALVES", 8)
    table.score(tmp_path, case, "early", "")
    handed = read(table.place(tmp_path, case, "early"))
    assert handed.train[0].shape == (60, 64)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    table.score(tmp_path, case, "early", "")
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    torch.save(
        {"scores": torch.randn(6, 60), "seconds": 1.0, "megabytes": 2.0}, reply(tmp_path / "digits, early.pt", "TRAK")
    )
    rows = table.judged(tmp_path, case, "early")
    assert list(rows) == [name for name in table.METHODS if "kronfluence" not in name]
    assert table.spread(rows["unrolled"]["same"])[0] > 0.95
    assert table.spread(rows["EK-FAC"]["same"])[0] > 0.4
    table.show({"digits, early": rows})
