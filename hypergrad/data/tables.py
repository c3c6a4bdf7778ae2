"""Tables that need no download, split into train, dev and test with a seed."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_SEX = 1
"""The column of the diabetes data with two values only, whose square adds nothing."""


class Split(NamedTuple):
    """One part of a data set: n examples with p features.

    Attributes:
        X: inputs, shape (n, p); only problems that say so accept sparse inputs.
        y: targets, shape (n,): numbers, or classes as integers.

    Examples:
        >>> X, y = hg.Split(X=torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), y=torch.tensor([0, 1, 1]))
        >>> X.shape, y.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """

    X: Tensor
    y: Tensor


class Splits(NamedTuple):
    """The three disjoint parts of a data set, each with inputs X, shape (n, p), and targets y, shape (n,).

    Attributes:
        train: the part that w is fitted to.
        dev: the part that λ is tuned on.
        test: the part that judges both.

    Examples:
        >>> X, y = torch.arange(8.0).reshape(8, 1), torch.arange(8.0)
        >>> data = hg.Splits(train=hg.Split(X[:4], y[:4]), dev=hg.Split(X[4:6], y[4:6]), test=hg.Split(X[6:], y[6:]))
        >>> data.dev.y
        tensor([4., 5.])
        >>> problem = hg.Ridge(data, l2=3.5)
        >>> problem.solution(problem.init_hparams())
        {'weight': tensor([0.5000])}
    """

    train: Split
    dev: Split
    test: Split


def require_parts(data: Splits) -> None:
    """Require parts that fit together: dense or CSR inputs, as many targets, and finite numbers.

    Raises:
        ValueError: if numbers of features or examples disagree, or a part is empty or holds NaN.
    """
    num_features = data.train.X.shape[-1]
    for name, (X, y) in zip(data._fields, data, strict=True):
        if X.ndim != 2 or len(y) == 0 or y.shape != X.shape[:1] or X.shape[1] != num_features:
            raise ValueError(
                f"The {name} part needs X of shape (n, {num_features}) and y of shape (n,) with n ≥ 1, but X is "
                f"{tuple(X.shape)} and y is {tuple(y.shape)}."
            )
        values = X.values() if X.layout == torch.sparse_csr else X
        bad = int((~values.isfinite()).sum() + (~y.isfinite()).sum())
        if bad:
            raise ValueError(f"The {name} part holds {bad} values that are NaN or infinite; drop or impute them.")


def diabetes(*, seed: int = 0, dev: float = 0.25, test: float = 0.25, quadratic: bool = False) -> Splits:
    """scikit-learn's diabetes data: 442 patients, 10 features, disease progression after a year.

    Inputs and target are standardised with the mean and deviation of the train part. So a model needs no intercept,
    predicting the mean has a mean squared error of 1, and dev and test stay unseen.

    Args:
        seed: of the random split.
        dev: fraction of the examples in the dev part, in (0, 1).
        test: fraction in the test part, in (0, 1); the rest, which must not be empty, is the train part.
        quadratic: use the paper's larger model with 64 features: the 10 features, 9 squares (the sex has only two
            values) and 45 products.

    Returns:
        The splits, in torch's default dtype.

    Also raised, by what it calls: ValueError if a part would be empty.

    Examples:
        >>> train, dev, test = hg.diabetes(seed=0)
        >>> train.X.shape, dev.X.shape, test.X.shape
        (torch.Size([222, 10]), torch.Size([110, 10]), torch.Size([110, 10]))
        >>> hg.diabetes(quadratic=True).train.X.shape
        torch.Size([222, 64])

    Source: Efron, Hastie, Johnstone & Tibshirani, "Least angle regression", Annals of Statistics (2004).
    """
    from sklearn.datasets import load_diabetes

    X, y = (np.asarray(array) for array in load_diabetes(return_X_y=True))
    if quadratic:
        pairs = [(j, j) for j in range(10) if j != _SEX] + [(j, k) for j in range(10) for k in range(j + 1, 10)]
        X = np.hstack([X, np.stack([X[:, j] * X[:, k] for j, k in pairs], 1)])
    parts = _standardised(X, y, seed=seed, dev=dev, test=test)
    centre, spread = parts[0].y.mean(), parts[0].y.std()
    return Splits(*(Split(X, (y - centre) / spread) for X, y in parts))


def breast_cancer(*, seed: int = 0, dev: float = 0.25, test: float = 0.25) -> Splits:
    """scikit-learn's breast cancer data: 569 tumours, 30 features, 1.0 for benign and 0.0 for malignant.

    Inputs are standardised with the mean and deviation of the train part.

    Args:
        seed: of the random split.
        dev: fraction of the examples in the dev part, in (0, 1).
        test: fraction in the test part, in (0, 1); the rest, which must not be empty, is the train part.

    Returns:
        The splits, in torch's default dtype.

    Also raised, by what it calls: ValueError if a part would be empty.

    Source: Street, Wolberg & Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", SPIE (1993).
    """
    from sklearn.datasets import load_breast_cancer

    return _standardised(*load_breast_cancer(return_X_y=True), seed=seed, dev=dev, test=test)


def sparse_regression(
    *, seed: int = 0, n: int = 500, p: int = 5000, num_relevant: int = 50, snr: float = 5.0, correlation: float = 0.5
) -> Splits:
    """Data of a linear model in which few features matter, with more features than examples.

    y = X w + ε, where columns j and k of the Gaussian X have correlation ρ^|j−k|, `num_relevant` random entries of w
    are ±1 and the others zero, and Var(X w) = snr · Var(ε) in the train part. X and y are divided by their root mean
    squares in the train part.

    Args:
        seed: of every draw.
        n: examples in the train part, ≥ 2; dev and test have half as many each.
        p: features, ≥ 1.
        num_relevant: features that matter, from 1 to p.
        snr: signal-to-noise ratio of variances, > 0.
        correlation: ρ, in [0, 1).

    Returns:
        The splits, in torch's default dtype; X has shape (n, p) in the train part.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if n < 2 or not 1 <= num_relevant <= p or not snr > 0 or not 0 <= correlation < 1:
        raise ValueError(
            f"sparse_regression needs n ≥ 2, 1 ≤ num_relevant ≤ p, snr > 0 and correlation in [0, 1), but they are "
            f"{n}, {num_relevant} of {p}, {snr:g} and {correlation:g}."
        )
    generator = torch.Generator().manual_seed(seed)
    sizes = [n, n // 2, n // 2]
    X = torch.randn(sum(sizes), p, generator=generator)
    for j in range(1, p):
        X[:, j].mul_((1 - correlation**2) ** 0.5).add_(X[:, j - 1], alpha=correlation)
    truth = torch.zeros(p)
    truth[torch.randperm(p, generator=generator)[:num_relevant]] = 1.0
    truth *= torch.randn(p, generator=generator).sign()
    signal = X @ truth
    y = signal + signal[:n].std() / snr**0.5 * torch.randn(sum(sizes), generator=generator)
    X, y = X / X[:n].square().mean(0).sqrt(), y / y[:n].square().mean().sqrt()
    return Splits(*(Split(*part) for part in zip(X.split(sizes), y.split(sizes), strict=True)))


def random_parts(X: Tensor, y: Tensor, *, seed: int, dev: float, test: float) -> Splits:
    """A random split into train, dev and test.

    Args:
        X: inputs, shape (n, …).
        y: targets, shape (n,).
        seed: of the order.
        dev: fraction of the examples in the dev part, in (0, 1).
        test: fraction in the test part, in (0, 1).

    Raises:
        ValueError: if a part would hold fewer than two examples, or a fraction is not finite.
    """
    for name, fraction in (("dev", dev), ("test", test)):
        if not math.isfinite(fraction):
            raise ValueError(f"{name} must be a fraction of the examples, between 0 and 1, but it is {fraction}.")
    num_dev, num_test = round(dev * len(y)), round(test * len(y))
    sizes = {"train": len(y) - num_dev - num_test, "dev": num_dev, "test": num_test}
    for name, size in sizes.items():
        if size < 2:
            raise ValueError(
                f"The {name} part would hold {size} of {len(y)} examples; dev = {dev:g} and test = {test:g} must be "
                "positive fractions that leave some for train."
            )
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return Splits(*(Split(X[rows], y[rows]) for rows in order.split(list(sizes.values()))))


def _standardised(X_all: Any, y_all: Any, *, seed: int, dev: float, test: float) -> Splits:
    """A random split with inputs standardised by the train part."""
    X, y = (torch.tensor(array, dtype=torch.get_default_dtype()) for array in (X_all, y_all))
    parts = random_parts(X, y, seed=seed, dev=dev, test=test)
    centre, spread = parts.train.X.mean(0), parts.train.X.std(0)
    return Splits(*(Split((X - centre) / spread, y) for X, y in parts))
