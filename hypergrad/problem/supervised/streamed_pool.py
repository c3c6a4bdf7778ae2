"""Train and dev examples put together, and split again, of which some are read when they are used."""

from copy import copy
from typing import Any, TypeVar

from torch import Tensor

from hypergrad.core.torch_internals.modules import buffers_of, set_buffers, set_submodules, submodules_of
from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.data.batch import Examples
from hypergrad.data.pooled_rows import PooledRows
from hypergrad.data.rows import ArrayRows, Rows
from hypergrad.data.streamed_rows import RowPart
from hypergrad.problem.base import InnerProblem

P = TypeVar("P", bound=InnerProblem)

POOL = ("train", "dev")
"""The parts of the pool."""


def on_streamed_rows(problem: P, train: Tensor, dev: Tensor) -> P:
    """A copy of a problem on other rows of its data, which are read when they are used.

    Args:
        problem: an `ExampleProblem`, not changed.
        train: positions of the new train examples among the old train examples and then the old dev examples.
        dev: positions of the new dev examples.

    Returns:
        The copy; it shares everything else with the problem.

    Also raised, by what it calls: ValueError if a part cannot be read by rows, or the two parts differ in shape.
    """
    old: Any = problem
    pool, streaming = [_rows(old, name) for name in POOL], old.streaming.again()
    held = {f"{letter}{suffix}" for letter in ("X", "y", "reader") for suffix in ("", "_dev")}
    other: Any = copy(problem)
    set_buffers(other, {name: x for name, x in buffers_of(problem).items() if name not in held})
    set_submodules(other, {name: part for name, part in submodules_of(problem).items() if name not in held})
    other._streamed = dict(old._streamed)
    before = next(part for part in map(old.streamed, POOL) if part is not None)
    for name, positions in zip(POOL, (train, dev), strict=True):
        part = streaming.part_of(PooledRows(pool, positions, name), before.like)
        part.require_targets = before.require_targets
        other._hold(name, part)
    return other


def _rows(problem: Any, name: str) -> Rows:
    """The rows of a part.

    Also raised, by what it calls: ValueError if it has none.
    """
    streamed = problem.streamed(name)
    if isinstance(streamed, RowPart):
        return streamed.rows.rows
    problem.size(name)  # raises if the part can be read in order only
    X, y = problem.part(name)
    return ArrayRows(Examples(tree_map(Tensor.cpu, X), y.cpu(), problem._columns), name)
