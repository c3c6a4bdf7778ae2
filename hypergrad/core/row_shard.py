"""Tensors of which each process keeps some rows."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hypergrad.core.collectives import Ranks

# Their names before torch 2.13, which warns of these.
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True)
class RowShard:
    """How the n rows of a tensor are spread over the processes.

    Rank r keeps the rows from r c to (r + 1) c − 1, with c = ⌈n / P⌉ for P processes, and the last rank what is left,
    as in `torch.chunk`; with few rows the last ranks keep none. All ranks must call the methods that send something in
    the same order.

    Attributes:
        ranks: the processes.
        size: n.
        is_private: whether the losses on this process use no row but its own. If not, they use all rows, of which
            this process keeps its own.
    """

    ranks: Ranks
    size: int
    is_private: bool = False

    @property
    def rows(self) -> range:
        """The rows that this process keeps."""
        start = min(self.ranks.rank * self._most, self.size)
        return range(start, min(start + self._most, self.size))

    def own(self, whole: Tensor) -> Tensor:
        """The rows of this process, of a tensor that all processes have; a copy, so that the others can be freed."""
        return whole.detach()[self.rows.start : self.rows.stop].clone()

    def whole(self, own: Tensor) -> Tensor:
        """All rows, from those of each process, by one all-gather of n rows."""
        found = own.new_empty(self._most * self.ranks.world, *own.shape[1:])
        _gather(found, self._padded(own, self._most), group=self.ranks.group)
        return found[: self.size]

    def summed(self, parts: Tensor) -> Tensor:
        """The rows of this process of a sum over the processes, by one reduce-scatter of n rows.

        Args:
            parts: the summand of this process, with all n rows.
        """
        found = parts.new_empty(self._most, *parts.shape[1:])
        padded = self._padded(parts, self._most * self.ranks.world)
        _reduce_scatter(found, padded, group=self.ranks.group)
        return found[: len(self.rows)].clone()

    @property
    def needed(self) -> int:
        """The number of rows with which each process has at least one."""
        return (self.ranks.world - 1) * self._most + 1

    @property
    def _most(self) -> int:
        return -(-self.size // self.ranks.world)

    @staticmethod
    def _padded(rows: Tensor, count: int) -> Tensor:
        """The rows, contiguous, with rows of zeros after them."""
        missing = count - len(rows)
        rows = rows.detach()
        if missing:
            rows = torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])
        return rows.contiguous()


@dataclass(frozen=True)
class Rows:
    """The rows of a tensor on this process, as a leaf of a state.

    Attributes:
        own: the rows, contiguous.
        shard: which ones they are.
    """

    own: Tensor
    shard: RowShard

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the whole tensor."""
        return self.shard.size, *self.own.shape[1:]


def norm_over_ranks(own: list[Tensor], shared: list[Tensor], ranks: Ranks) -> Tensor:
    """The norm of all entries of some tensors, shape (), the same on all processes.

    Args:
        own: rows of this process, at least one tensor.
        shared: tensors that all processes have alike.
        ranks: the processes.
    """
    (square,) = ranks.total([torch.stack([x.detach().square().sum() for x in own]).sum()])
    return torch.stack([square, *(x.detach().square().sum() for x in shared)]).sum().sqrt()
