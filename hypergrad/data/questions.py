"""Questions with labels of weak supervision."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hypergrad.data.tables import Split, Splits

_LABELS = {"weak": "weak_label", "right": "label"}
_PADDING, _UNKNOWN = 0, 1


def trec_questions(
    root: str | Path, *, labels: str = "weak", vocabulary: int = 2000, length: int = 24, seed: int = 0
) -> Splits:
    """The TREC questions, each of one of six kinds, as numbers of words; the train part may have weak labels.

    A word has a number from 2 if it is one of the most frequent ones of the train part, else 1; a question ends with
    zeros. Words are in lower case. The first word of each test question, which names its kind, is left out.

    Args:
        root: the folder with train.tsv, valid.tsv (the dev part) and test.tsv. Their columns, separated by tabs, are
            `text`, its words separated by spaces, and `label`; train.tsv also has `weak_label`.
        labels: of the train part: "weak" for those of weak supervision, or "right".
        vocabulary: numbers for words, with 0 and 1, ≥ 3.
        length: words kept of a question, ≥ 1.
        seed: of the order of the train part.

    Returns:
        The splits, inputs of shape (n, length) and targets of shape (n,), integers.

    Raises:
        ValueError: if `labels`, `vocabulary` or `length` is none of these, or a file lacks a column.

    Also raised, by what it calls: FileNotFoundError if a file is not there; the message says what to pass.

    Source: Li & Roth, "Learning question classifiers", COLING (2002).
    """
    if labels not in _LABELS or vocabulary < 3 or length < 1:
        raise ValueError(
            f"trec_questions needs labels weak or right, vocabulary ≥ 3 and length ≥ 1, but they are {labels!r}, "
            f"{vocabulary} and {length}."
        )
    train, dev, test = (_rows(Path(root) / f"{name}.tsv") for name in ("train", "valid", "test"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    train = [train[i] for i in order]
    words = [_words(row["text"]) for row in train]
    common = Counter(word for question in words for word in question).most_common(vocabulary - 2)
    numbers = {word: number for number, (word, _) in enumerate(common, start=2)}
    return Splits(
        _split(words, _targets(train, _LABELS[labels]), numbers, length),
        _split([_words(row["text"]) for row in dev], _targets(dev, "label"), numbers, length),
        _split([_words(row["text"])[1:] for row in test], _targets(test, "label"), numbers, length),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. The TREC questions (Li & Roth 2002) are not part of this package: set data.root to a "
            "folder with train.tsv (columns label, weak_label, text), valid.tsv and test.tsv (label, text)."
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    wanted = {"label", "weak_label", "text"} if path.stem == "train" else {"label", "text"}
    missing = wanted - set(rows[0] if rows else ())
    if missing:
        raise ValueError(f"{path} must have the columns {', '.join(sorted(wanted))}, but lacks {sorted(missing)}.")
    return rows


def _words(text: str) -> list[str]:
    return text.lower().split()


def _targets(rows: Iterable[Mapping[str, str]], column: str) -> Tensor:
    return torch.tensor([int(row[column]) for row in rows])


def _split(words: Sequence[Sequence[str]], y: Tensor, numbers: Mapping[str, int], length: int) -> Split:
    X = torch.full((len(words), length), _PADDING)
    for row, question in zip(X, words, strict=True):
        kept = [numbers.get(word, _UNKNOWN) for word in question[:length]]
        row[: len(kept)] = torch.tensor(kept)
    return Split(X, y)
