"""The part of a batch that belongs to one of several processes, each of which owns some train examples."""

from typing import Any

from torch import Tensor

from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.model.criterion import Fraction
from hypergrad.problem.supervised.examples import Batch


def owned_part(batch: Batch, num: int, denominator: Tensor | None, rank: int, rows: range) -> tuple[Batch, float]:
    """The examples of a batch of train that are among `rows`, and their share of the batch.

    If there is none, it is one of `rows` at share 0.

    Args:
        batch: a whole one.
        num: of its examples, n.
        denominator: of the loss on the batch, see `Fraction`.
        rank: by which the random draws of the part differ from those of others.
        rows: at least one.
    """
    if batch.rows is None:
        own = where = slice(rows.start, rows.stop)
        count = len(rows)
    else:
        where: Any = ((batch.rows >= rows.start) & (batch.rows < rows.stop)).nonzero()[:, 0]
        own, count = batch.rows[where], len(where)
        if count == 0:
            own, where = batch.rows.new_tensor([rows.start]), slice(0, 1)
    examples = None if batch.examples is None else tree_map(lambda x: x[where], batch.examples)
    fraction = Fraction(rank, max(count, 1) / num, denominator, is_empty=count == 0)
    return Batch(own, batch.step, examples, fraction, rows.start), count / num
