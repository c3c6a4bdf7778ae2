"""text_cleaning: made-up questions whose weak labels are half wrong."""

import random
from pathlib import Path

import pytest
import torch
from slow_cases import mostly_slow

import hypergrad as hg
from experiments.text_cleaning import table
from hypergrad.model.transformer import TransformerClassifier


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Questions whose kind is the number in their word; weak labels are right for every second one."""
    draw = random.Random(0)

    def question(kind: int) -> str:
        return f"what {draw.choice('abc')} kind{kind} is {draw.choice('xyz')}"

    def rows(count: int, *, weak: bool = False, tag: str = "") -> str:
        lines = ["label\tweak_label\ttext" if weak else "label\ttext"]
        for i in range(count):
            kind = draw.randrange(6)
            label = f"{kind}\t{kind if i % 2 else (kind + 1) % 6}" if weak else f"{kind}"
            lines.append(f"{label}\t{tag}{question(kind)}")
        return "\n".join(lines) + "\n"

    for name, text in {
        "train": rows(300, weak=True),
        "valid": rows(60),
        "test": rows(60, tag="tag "),
    }.items():
        (tmp_path / f"{name}.tsv").write_text(text)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*are in the .* part too:UserWarning")
@pytest.mark.filterwarnings("ignore:.*is not solved:hypergrad.NotConvergedWarning")
@pytest.mark.parametrize("estimators", mostly_slow([["ours"], ["ours", "K-FAC"]], []))
def test_weights_tell_wrong_labels_from_right_ones(root: Path, monkeypatch: pytest.MonkeyPatch, estimators: list[str]):
    if "K-FAC" in estimators:
        pytest.importorskip("curvlinops")
    for name in table.ESTIMATORS.keys() - estimators:
        monkeypatch.delitem(table.ESTIMATORS, name)
    for name, value in {"OUTER_STEPS": 15, "BATCH_SIZE": 100, "STEPS": 30, "TUNING_STEPS": 5}.items():
        monkeypatch.setattr(table, name, value)
    monkeypatch.setattr(table, "SOLVER", hg.AdamW(lr=1e-2))
    found = table.measured(str(root), 0)
    rows = found["rows"]
    assert rows["ours, and dev"]["auc"] > 0.9
    for name in table.ESTIMATORS:
        assert rows[f"{name}, and dev"]["test"] > rows["weak labels"]["test"]
    assert len(found["weights"]) == 300
    assert rows["right labels"]["test"] > 0.9
    assert rows["ours, trained on with its weights"]["test"] > rows["weak labels"]["test"]
    assert "dev" in rows["weak labels"]
    assert "dev" not in rows["weak labels and dev"]
    table.show({"0": found})


def test_padding_does_not_change_the_scores_of_a_text():
    torch.manual_seed(0)
    model = TransformerClassifier(vocabulary=9, num_outputs=3, length=6).eval()
    text = torch.tensor([[4, 5, 6]])
    torch.testing.assert_close(model(torch.cat([text, torch.zeros(1, 3, dtype=torch.long)], 1)), model(text))
