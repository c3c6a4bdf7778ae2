"""Smaller data sets: fewer examples, or fewer examples of some classes."""

import torch

from hypergrad.data.tables import Split, Splits


def first_of(data: Splits, *, train: int | None = None, dev: int | None = None, test: int | None = None) -> Splits:
    """The first examples of each part; a random split has put them in random order.

    Args:
        data: the parts, each with X of shape (n, …) and y of shape (n,).
        train: number of train examples, ≥ 1; None keeps all.
        dev: the same for dev.
        test: the same for test.

    Raises:
        ValueError: if a part holds fewer examples.
    """
    sizes = {"train": train, "dev": dev, "test": test}
    for name, part in zip(data._fields, data, strict=True):
        size = sizes[name]
        if size is not None and not 1 <= size <= len(part.y):
            raise ValueError(f"The {name} part holds {len(part.y)} examples, but {size} are requested.")
    return Splits(*(Split(X[:size], y[:size]) for (X, y), size in zip(data, sizes.values(), strict=True)))


def long_tailed(data: Splits, *, imbalance: float = 100.0) -> Splits:
    """The data with fewer and fewer train examples from class to class; dev and test do not change.

    Class k of K keeps the first round(n₀ · imbalance^(−k/(K−1))) train examples, where the rarest class has n₀.

    Args:
        data: the parts, each with X of shape (n, …) and y of shape (n,), the classes 0 to K − 1.
        imbalance: examples of class 0 for each of class K − 1, ≥ 1.

    Raises:
        ValueError: if imbalance is below 1, or so large that a class loses all its examples.

    Source: Cui, Jia, Lin, Song & Belongie, "Class-balanced loss based on effective number of samples", CVPR (2019).
    """
    X, y = data.train
    counts = y.bincount()
    k = torch.arange(len(counts), dtype=torch.float64)
    kept = (counts.min() * imbalance ** (-k / max(len(counts) - 1, 1))).round().long()
    if not imbalance >= 1 or kept.min() < 1:
        raise ValueError(
            f"imbalance must be from 1 to the {counts.min().item()} examples of the rarest class, but it is "
            f"{imbalance:g}."
        )
    rank = torch.stack([(y == c).cumsum(0) for c in range(len(counts))])[y, torch.arange(len(y))]
    rows = rank <= kept[y]
    return data._replace(train=Split(X[rows], y[rows]))
