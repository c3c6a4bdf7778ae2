"""Problems on examples that several processes share."""

from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, value_and_gradient
from hypergrad.core.collectives import Ranks
from hypergrad.core.device import sent
from hypergrad.data.minibatch import scheduled
from hypergrad.data.own_rows import own_rows
from hypergrad.data.streamed_rows import RowPart
from hypergrad.model.batch_statistics import Moments, moments_over
from hypergrad.model.criterion import Fraction
from hypergrad.problem.supervised.divided import DividedProblem
from hypergrad.problem.supervised.examples import Batch
from hypergrad.problem.supervised.owned_part import owned_part


class SpreadProblem(DividedProblem):
    """A problem on examples, each of whose batches several processes compute in parts, as `micro_batch` divides it.

    A process reads its own examples only, of data sets that are read by rows when they are used. The denominators of
    losses, and the statistics of batch normalisation, are then sums over the processes.
    """

    ranks = Ranks()
    """The processes."""
    has_batch_statistics = False
    """Whether the model normalises by the statistics of its batch, which several processes share."""
    _dev_counts: Tensor | None = None
    """What each example of dev adds to the denominator of the loss, if dev is streamed."""

    def on_ranks(self, ranks: Ranks) -> Self:
        other = copy(self)
        other.ranks, other._dev_counts = ranks, self._counts_of_dev(ranks)
        return other

    def inner_share(self, batch: Batch | None, rank: int, world: int) -> tuple[Batch, float]:
        return self._part("train", batch or Batch(), rank, world)

    def inner_share_at(self, step: int, ranks: Ranks) -> tuple[Batch, float]:
        streamed = self.streamed("train")
        if self._random is None and not isinstance(streamed, RowPart):
            return super().inner_share_at(step, ranks)
        rows, epoch = scheduled(step, size=self.size("train"), **self._schedule)
        rows = torch.arange(self.size("train")) if rows is None else rows
        own = own_rows(len(rows), ranks.rank, ranks.world)
        mine = sent(rows[own.rows], self.device("train"))
        is_empty = own.share == 0
        examples: Any = self._reread(mine, epoch)
        if isinstance(streamed, RowPart):
            examples = streamed.own_at_step(step, ranks.rank, ranks.world)
        count = self.criterion.count(examples[1])
        if count is not None:
            (count,) = ranks.total([0 * count if is_empty else count])
        fraction = Fraction(ranks.rank, own.share or 1 / len(rows), count, is_empty)
        return Batch(mine, step if self.draws else None, examples, fraction), own.share

    def owned_share(self, batch: Batch | None, rank: int, rows: range) -> tuple[Batch, float]:
        batch = batch or Batch()
        return owned_part(
            batch, self._length("train", batch), self.criterion.count(self._targets("train", batch)), rank, rows
        )

    def outer_share(self, batch: Batch | None, rank: int, world: int) -> tuple[Batch, float]:
        batch = batch or Batch()
        if self._dev_counts is not None:
            counts = self._dev_counts if batch.rows is None else self._dev_counts[batch.rows.cpu()]
            batch = batch._replace(fraction=Fraction(None, 1.0, sent(counts.sum(), self.device("dev"))))
        return self._part("dev", batch, rank, world)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        fraction = None if batch is None else batch.fraction
        if fraction is None or self.moments(fraction) is None:
            return super().inner_loss_and_gradient(params, hparams, batch)
        # The losses of all processes depend on the statistics, which therefore need each loss with its share.
        share, name = 0.0 if fraction.is_empty else fraction.share, f"{type(self).__name__}.inner_loss"
        loss, grad = value_and_gradient(lambda w: share * self.inner_loss(w, hparams, batch), params, name)
        scale = 1 / (share or 1.0)
        return scale * loss, {key: scale * g for key, g in grad.items()}

    def moments(self, fraction: Fraction | None) -> Moments | None:
        """The statistics by which batch normalisation normalises a part of a batch; None for those of the part."""
        if fraction is None or not (self.has_batch_statistics and self.ranks.world > 1):
            return None
        return partial(moments_over, self.ranks, fraction.is_empty)

    def _part(self, name: str, batch: Batch, rank: int, world: int) -> tuple[Batch, float]:
        """What one of several processes computes of a batch; without an example for it, the first one at share 0."""
        num = self._length(name, batch)
        cut, fraction, share = list(self._pieces(name, batch, num, world))[rank]
        if share == 0:
            cut, fraction = slice(0, 1), fraction._replace(share=1 / num, is_empty=True)
        return self._piece_of(batch, cut, fraction), share

    def _counts_of_dev(self, ranks: Ranks) -> Tensor | None:
        """What each example of dev adds to the denominator of the loss, of which each process reads its own part.

        Returns:
            The numbers on the CPU, shape (n,); None if dev is in memory, or the denominator does not depend on targets.
        """
        dev = self.streamed("dev")
        if not isinstance(dev, RowPart) or self.criterion.count_each(dev.first[1]) is None:
            return None
        own, counts = own_rows(dev.size(), ranks.rank, ranks.world), torch.zeros(dev.size(), dtype=torch.float64)
        if own.share:
            each: list[Any] = [self.criterion.count_each(y) for _, y in dev.each(_pieces_of(dev, own.rows))]
            counts[own.rows] = torch.cat(each).cpu()
        (total,) = ranks.total([sent(counts, dev.like.device)])  # NCCL sums on a GPU only
        return total.cpu()


def _pieces_of(part: RowPart, rows: slice) -> Iterator[Sequence[int]]:
    """Some rows of a part, as many at a time as are read at once."""
    every = range(part.size())[rows]
    return (every[k : k + part.chunk] for k in range(0, len(every), part.chunk))
