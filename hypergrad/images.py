"""Images of handwritten digits, which need no download."""

import torch

from hypergrad.data import Splits, random_parts


def digits(*, seed: int = 0, dev: float = 0.25, test: float = 0.25) -> Splits:
    """scikit-learn's digits: 1797 images of 8 × 8 pixels, in ten classes; inputs of shape (n, 64), from 0 to 1.

    Args:
        seed: of the random split.
        dev: fraction of the examples in the dev part, in (0, 1).
        test: fraction in the test part, in (0, 1); the rest, which must not be empty, is the train part.

    Returns:
        The splits, inputs in torch's default dtype and targets as integers.

    Raises:
        ValueError: if a part would be empty.

    Source: Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository (1998).
    """  # noqa: DOC502
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    X, y = torch.tensor(images, dtype=torch.get_default_dtype()) / 16, torch.tensor(labels)
    return random_parts(X, y, seed=seed, dev=dev, test=test)
