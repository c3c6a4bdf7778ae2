"""Train and dev examples put together, and split again."""

from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from hypergrad.problem.base import InnerProblem

P = TypeVar("P", bound=InnerProblem)


def on_rows(problem: P, train: Tensor, dev: Tensor) -> P:
    """A copy of a problem on other rows of its data, which are its buffers X, y, X_dev and y_dev.

    Args:
        problem: not changed.
        train: positions of the new train examples among the old train examples and then the old dev examples.
        dev: positions of the new dev examples.

    Returns:
        The copy; it shares everything else with the problem.
    """
    other: Any = copy(problem)
    pools = {name: torch.cat([getattr(problem, name), getattr(problem, f"{name}_dev")]) for name in ("X", "y")}
    rows = {"": train, "_dev": dev}
    other._buffers = problem._buffers | {f"{name}{at}": pools[name][rows[at]] for name in pools for at in rows}
    return other
