"""The hyperparameters of which each process of a run keeps some rows."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from hypergrad.callback.base import Record
from hypergrad.core.autodiff import Tensors
from hypergrad.core.hparam_rows import HparamRows
from hypergrad.core.row_shard import RowShard
from hypergrad.estimator.base import Hypergradient


class Spread(HparamRows):
    """The rows of the hyperparameters that this process keeps in a run of the outer loop.

    Args:
        shards: by hyperparameter.
        device: of λ.
    """

    def __init__(self, shards: Mapping[str, RowShard], device: torch.device | str = "cpu") -> None:
        super().__init__(shards)
        self.device = device

    def estimated(self, found: Hypergradient) -> Hypergradient:
        """An estimate with the rows of this process of dF/dλ, from its parts on all ranks, as `summed`.

        The truncation bias is left out unless it is 0, because it is that of this rank's part.
        """
        if not self.shards:
            return found
        unrolling = found.unrolling
        if unrolling is not None and unrolling.truncation_bias:
            unrolling = replace(unrolling, truncation_bias=None)
        return replace(found, grad=self.summed(found.grad), unrolling=unrolling)

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
