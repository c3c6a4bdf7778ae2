"""The hyperparameters of which each process of a run keeps some rows."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from hypergrad.callback.base import Record
from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.row_shard import RowShard, norm_over_ranks
from hypergrad.estimator.base import Hypergradient


class Spread:
    """What has to be gathered or summed where only some rows of λ are on this process; without shards, nothing.

    All ranks must call the same methods in the same order.

    Args:
        shards: by hyperparameter.
        device: of λ.
    """

    def __init__(self, shards: Mapping[str, RowShard], device: torch.device | str = "cpu") -> None:
        self.shards, self.device = dict(shards), device
        self.ranks = next(iter(shards.values())).ranks if shards else Ranks()

    def __bool__(self) -> bool:
        return bool(self.shards)

    def own(self, whole: Tensors) -> Tensors:
        """The rows of this process."""
        return {name: self.shards[name].own(x) if name in self.shards else x for name, x in whole.items()}

    def whole(self, own: Tensors) -> Tensors:
        """All rows, on all ranks: one all-gather for each hyperparameter."""
        return {name: self.shards[name].whole(x) if name in self.shards else x for name, x in own.items()}

    def for_losses(self, own: Tensors) -> Tensors:
        """λ as the losses of `InnerProblem.on_shards` use it: an all-gather for each that is not private."""
        needed = {name: shard for name, shard in self.shards.items() if not shard.is_private}
        return {name: needed[name].whole(x) if name in needed else x for name, x in own.items()}

    def summed(self, found: Hypergradient) -> Hypergradient:
        """An estimate with the rows of this process of dF/dλ, from its parts on all ranks: a reduce-scatter for each.

        The truncation bias is left out unless it is 0, because it is that of this rank's part.
        """
        if not self.shards:
            return found
        needed = {name: shard for name, shard in self.shards.items() if not shard.is_private}
        grad = {name: needed[name].summed(x) if name in needed else x for name, x in found.grad.items()}
        unrolling = found.unrolling
        if unrolling is not None and unrolling.truncation_bias:
            unrolling = replace(unrolling, truncation_bias=None)
        return replace(found, grad=grad, unrolling=unrolling)

    def norm(self, named: Tensors) -> Tensor:
        """The norm of all entries, shape (), the same on all ranks: one all-reduce of a number."""
        own = [x for name, x in named.items() if name in self.shards]
        return norm_over_ranks(own, [x for name, x in named.items() if name not in self.shards], self.ranks)

    def clip(self, u: Tensors, max_norm: float) -> None:
        """Scale the gradients of u, in place, so that their norm is at most `max_norm`, as `clip_grad_norm_` does."""
        if not self.shards:
            torch.nn.utils.clip_grad_norm_(list(u.values()), max_norm)
            return
        total = self.norm({name: x.grad for name, x in u.items() if x.grad is not None})
        torch.nn.utils.clip_grads_with_norm_(list(u.values()), max_norm, total)

    def on_any(self, own: Iterable[str], names: Iterable[str]) -> list[str]:
        """Which names were found on at least one rank.

        Args:
            own: those that this rank found.
            names: all that could be found; the same on all ranks.
        """
        own, names = set(own), list(names)
        if not self.shards:
            return [name for name in names if name in own]
        flags = torch.tensor([float(name in own) for name in names], device=self.device)
        (counts,) = self.ranks.total([flags])
        return [name for name, count in zip(names, counts.tolist(), strict=True) if count > 0]

    def record(self, record: Record) -> Record:
        """A record with this process's rows, from one with its rows of dF/dλ and the whole λ."""
        if not self.shards:
            return record
        numbers = {tag: x for tag, x in record.tensor_scalars().items() if tag.startswith("hparam")}
        if record.grad:
            numbers["hypergradient/norm"] = self.norm(record.grad).item()
        return replace(record, hparams=self.own(record.hparams), of_whole=numbers)

    def restored(self, record: Record) -> Record:
        """A record with this process's rows, from one that may have been made on another number of processes."""
        if not self.shards:
            return replace(record, of_whole=None)
        return self.record(replace(record, hparams=self.whole(record.hparams)))

    def whole_record(self, record: Record) -> Record:
        """A record with the whole λ and dF/dλ on all ranks."""
        if not self.shards:
            return record
        return replace(record, hparams=self.whole(record.hparams), grad=self.whole(record.grad))
