"""What the operations of the random compositions share: constants, and formulas."""

from collections.abc import Callable
from typing import Any

import exact_arrays as m
import numpy as np
import torch

Operation = Callable[[Any, Any, Any], Any]
EYE2, EYE3 = torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
ORDER = torch.tensor([[2, 0, 1], [1, 1, 2]])
TARGET = torch.tensor([2, 0])
KERNEL = torch.tensor([[[0.5, -1.0], [2.0, 0.25]]], dtype=torch.float64)
TALL = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.7, -1.0], [0.4, 0.1, 0.9], [-0.6, 1.1, 0.2]], dtype=torch.float64)
MASK = np.array([[True, False, True], [False, True, True]])
TMASK = torch.tensor(MASK)


def spd(x: Any, eye: Any) -> Any:
    """A well-conditioned symmetric matrix, 2 × 2."""
    return x @ x.T / 4 + eye


def square(x: Any, y: Any, eye: Any) -> Any:
    """A well-conditioned matrix, 3 × 3."""
    return x.T @ y / 8 + eye * 2


def logsumexp(x: Any) -> Any:
    """Of each row."""
    return m.log(m.exp(x).sum(-1))


def variance(x: Any, axis: Any = None, less: int = 1) -> Any:
    """The variance along an axis."""
    gap = x - x.mean(axis, keepdims=True)
    count = x.size if axis is None else x.shape[axis]
    return (gap * gap).sum(axis) / (count - less)
