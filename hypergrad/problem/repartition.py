"""Train and dev examples put together, and split again."""

from copy import copy
from typing import Any, TypeVar

from torch import Tensor

from hypergrad.core.torch_internals.modules import buffers_of, set_buffers, set_submodules, submodules_of
from hypergrad.data.tree import held, joined, take
from hypergrad.problem.base import InnerProblem

P = TypeVar("P", bound=InnerProblem)


def on_rows(problem: P, train: Tensor, dev: Tensor) -> P:
    """A copy of a problem on other rows of its data, which are X, y, X_dev and y_dev, each a buffer or `Inputs`.

    Args:
        problem: not changed.
        train: positions of the new train examples among the old train examples and then the old dev examples.
        dev: positions of the new dev examples.

    Returns:
        The copy; it shares everything else with the problem.
    """
    other: Any = copy(problem)
    pools = {name: joined(getattr(problem, name), getattr(problem, f"{name}_dev")) for name in ("X", "y")}
    rows = {"": train, "_dev": dev}
    found = {f"{name}{at}": held(take(pool, rows[at])) for name, pool in pools.items() for at in rows}
    buffers = {name: x for name, x in found.items() if isinstance(x, Tensor)}
    set_buffers(other, buffers_of(problem) | buffers)
    set_submodules(other, submodules_of(problem) | {name: x for name, x in found.items() if name not in buffers})
    return other
