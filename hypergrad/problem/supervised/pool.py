"""Train and dev examples put together, and parted anew."""

from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from hypergrad.problem.base import InnerProblem

P = TypeVar("P", bound=InnerProblem)


def on_rows(problem: P, train: Tensor, dev: Tensor) -> P:
    """A copy of a problem that holds its data in X, y, X_dev and y_dev, on other rows of them.

    Args:
        problem: whose buffers these are; not changed.
        train: positions among the examples of train and then dev.
        dev: the same.

    Returns:
        The copy; whatever else the problem holds is shared.
    """
    other: Any = copy(problem)
    pools = {name: torch.cat([getattr(problem, name), getattr(problem, f"{name}_dev")]) for name in ("X", "y")}
    rows = {"": train, "_dev": dev}
    other._buffers = problem._buffers | {f"{name}{at}": pools[name][rows[at]] for name in pools for at in rows}
    return other
