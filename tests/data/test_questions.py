"""Questions as numbers of words."""

from pathlib import Path

import pytest

import hypergrad as hg


def write(folder: Path, **files: str) -> Path:
    """Files of tab-separated columns."""
    for name, text in files.items():
        (folder / f"{name}.tsv").write_text(text)
    return folder


TRAIN = "label\tweak_label\ttext\n1\t0\tWhy is the sky blue ?\n3\t3\thow high is the sky\n"
DEV = 'label\ttext\n2\twho is "sky\n'
TEST = "label\ttext\n5\tdist How high is the moon ?\n"


def test_words_become_numbers_by_frequency_and_test_questions_lose_their_tag(tmp_path: Path):
    data = hg.trec_questions(write(tmp_path, train=TRAIN, valid=DEV, test=TEST), vocabulary=6, length=5)
    # "is", "the" and "sky" occur twice; the next one of the train part is its first word that occurs once.
    order = data.train.y.tolist()
    questions = {0: ["why", "is", "the", "sky", "blue"], 3: ["how", "high", "is", "the", "sky"]}
    common = [word for word in questions[order[0]] if word in ("is", "the", "sky")]
    common.append(next(word for word in questions[order[0]] if word not in common))
    numbers = {word: number for number, word in enumerate(common, start=2)}
    for row, label in zip(data.train.X.tolist(), order, strict=True):
        assert row == [numbers.get(word, 1) for word in questions[label]]
    assert data.dev.X.tolist() == [[1, numbers["is"], 1, 0, 0]]  # "sky with its quotation mark is another word
    assert data.test.X.tolist() == [[numbers.get(word, 1) for word in ["how", "high", "is", "the", "moon"]]]
    assert (data.dev.y.tolist(), data.test.y.tolist()) == ([2], [5])


def test_the_right_labels_are_in_the_same_order(tmp_path: Path):
    write(tmp_path, train=TRAIN, valid=DEV, test=TEST)
    weak, right = (hg.trec_questions(tmp_path, labels=labels, seed=3) for labels in ("weak", "right"))
    assert weak.train.X.equal(right.train.X)
    assert dict(zip(weak.train.y.tolist(), right.train.y.tolist(), strict=True)) == {0: 1, 3: 3}


def test_what_is_missing_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"There is no .*train\.tsv.*set data\.root to a folder with train"):
        hg.trec_questions(tmp_path)
    write(tmp_path, train=DEV, valid=DEV, test=TEST)
    with pytest.raises(ValueError, match=r"train\.tsv must have the columns .*, but lacks \['weak_label'\]"):
        hg.trec_questions(tmp_path)
    with pytest.raises(ValueError, match="labels weak or right, .* but they are 'both', 2000 and 24"):
        hg.trec_questions(tmp_path, labels="both")
