"""Hyperparameters of which this process keeps some rows, and sums over what all processes keep."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.row_shard import RowShard, norm_over_ranks


class HparamRows:
    """What has to be gathered or summed where only some rows of λ are on this process; without shards, nothing.

    λ has three forms: *whole*, with all rows; *own*, with the rows of this process; and that *of the losses*, where a
    private hyperparameter has its own rows, and another one all rows. All ranks must call the same methods in the same
    order.

    Args:
        shards: by hyperparameter; the others are the same on all processes.
    """

    def __init__(self, shards: Mapping[str, RowShard]) -> None:
        self.shards = dict(shards)
        self.ranks = next(iter(shards.values())).ranks if shards else Ranks()
        self._gathered = {name: shard for name, shard in self.shards.items() if not shard.is_private}

    def __bool__(self) -> bool:
        return bool(self.shards)

    def own(self, whole: Tensors) -> Tensors:
        """λ with the rows of this process, from all rows."""
        return _own(self.shards, whole)

    def whole(self, own: Tensors) -> Tensors:
        """λ with all rows, on all ranks: one all-gather for each hyperparameter with shards."""
        return {name: self.shards[name].whole(x) if name in self.shards else x for name, x in own.items()}

    def for_losses(self, own: Tensors) -> Tensors:
        """λ as the losses of `InnerProblem.on_shards` use it: an all-gather for each that is not private."""
        return {name: self._gathered[name].whole(x) if name in self._gathered else x for name, x in own.items()}

    def from_losses(self, hparams: Tensors) -> Tensors:
        """λ with the rows of this process, from that of the losses."""
        return _own(self._gathered, hparams) if self.shards else hparams

    def summed(self, parts: Tensors) -> Tensors:
        """The rows of this process of a derivative by λ, from each process's part of the sum.

        One reduce-scatter for each hyperparameter that is not private.

        Args:
            parts: of this process, shaped as λ of the losses.
        """
        return {name: self._gathered[name].summed(x) if name in self._gathered else x for name, x in parts.items()}

    def norm(self, named: Tensors) -> Tensor:
        """The norm of all entries of what is shaped as own rows, shape (), the same on all ranks, by an all-reduce.

        There must be shards.
        """
        own = [x for name, x in named.items() if name in self.shards]
        return norm_over_ranks(own, [x for name, x in named.items() if name not in self.shards], self.ranks)

    def dots(self, pairs: Sequence[tuple[Tensors, Tensors]]) -> list[Tensor]:
        """The inner products of pairs over all entries, each of shape (), the same on all ranks, by one all-reduce.

        There must be shards.

        Args:
            pairs: each of two that are shaped as own rows.
        """
        own = [torch.stack([(x[name] * y[name]).sum() for name in self.shards]).sum() for x, y in pairs]
        shared = [[(x[name] * y[name]).sum() for name in x if name not in self.shards] for x, y in pairs]
        totals = self.ranks.total([torch.stack(own)])[0].unbind()
        return [torch.stack([total, *rest]).sum() for total, rest in zip(totals, shared, strict=True)]


def _own(shards: Mapping[str, RowShard], whole: Tensors) -> Tensors:
    return {name: shards[name].own(x) if name in shards else x for name, x in whole.items()}
