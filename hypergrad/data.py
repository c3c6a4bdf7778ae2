"""Data that needs no download, split into train, dev and test with a seed."""

from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Inputs of shape (n, p) and targets of shape (n,)."""

    X: Tensor
    y: Tensor


class Splits(NamedTuple):
    """The three disjoint parts of a data set: w is fitted on train, λ on dev, and test judges both."""

    train: Split
    dev: Split
    test: Split


def diabetes(*, seed: int = 0, dev: float = 0.25, test: float = 0.25) -> Splits:
    """scikit-learn's diabetes data: 442 patients, 10 features, disease progression after a year.

    Inputs and target are standardised with the mean and deviation of the train part, so that a model needs no
    intercept, a mean squared error of 1 is what predicting the mean scores, and dev and test stay unseen.

    Args:
        seed: of the random split.
        dev: fraction of the examples in the dev part, in (0, 1).
        test: fraction in the test part, in (0, 1); the rest, which must not be empty, is the train part.

    Returns:
        The splits, in torch's default dtype.

    Raises:
        ValueError: if a part would be empty.

    Source: Efron, Hastie, Johnstone & Tibshirani, "Least angle regression", Annals of Statistics (2004).
    """
    from sklearn.datasets import load_diabetes

    X, y = (torch.tensor(array, dtype=torch.get_default_dtype()) for array in load_diabetes(return_X_y=True))
    num_dev, num_test = round(dev * len(y)), round(test * len(y))
    sizes = {"train": len(y) - num_dev - num_test, "dev": num_dev, "test": num_test}
    for name, size in sizes.items():
        if size < 2:
            raise ValueError(
                f"The {name} part would hold {size} of {len(y)} examples; dev = {dev:g} and test = {test:g} must be "
                "positive fractions that leave some for train."
            )
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    parts = [Split(X[rows], y[rows]) for rows in order.split(list(sizes.values()))]
    centre, spread = parts[0].X.mean(0), parts[0].X.std(0)
    y_centre, y_spread = parts[0].y.mean(), parts[0].y.std()
    return Splits(*(Split((X - centre) / spread, (y - y_centre) / y_spread) for X, y in parts))
