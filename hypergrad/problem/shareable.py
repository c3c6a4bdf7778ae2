"""The promise of a problem to several processes: which part of it each of them computes or keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypergrad.core.collectives import Ranks
from hypergrad.core.hparam_rows import HparamRows
from hypergrad.core.ranks import ALONE, Peers
from hypergrad.core.row_shard import RowShard

_NO_PART = "{} does not define `{}`, which several processes need to share its examples: define it, or run one process."


class Shareable:
    """What `InnerProblem` promises to processes that share it; none of it is needed in one process."""

    def inner_share(self, batch: Any, rank: int, world: int) -> tuple[Any, float]:
        """The part of an inner batch that process `rank` of `world` computes, and its share ≥ 0, for `DataParallel`.

        g(w, λ; batch) = Σ_r share_r g(w, λ; part_r), over all ranks. Penalties are in each part and count once, because
        the shares must have the sum 1. A process with nothing to compute gets any part that can be, with share 0.
        """
        raise NotImplementedError(_NO_PART.format(type(self).__name__, "inner_share"))

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[Any, float]:
        """The part of an outer batch of that process, by the same rule for f."""
        raise NotImplementedError(_NO_PART.format(type(self).__name__, "outer_share"))

    def row_owners(self) -> Sequence[str]:
        """The hyperparameters whose row i only train example i uses, by name, for `owned_share`; by default none."""
        return ()

    def owned_share(self, batch: Any, rank: int, rows: range) -> tuple[Any, float]:
        """`inner_share` of the train examples `rows` that are in the batch, which are those of process `rank`.

        In losses on that part, the hyperparameters of `row_owners` have these rows only.
        """
        raise NotImplementedError(_NO_PART.format(type(self).__name__, "owned_share"))

    def shards(self) -> Mapping[str, RowShard]:
        """The hyperparameters of which the outer loop keeps some rows on each process, by name; by default none."""
        return {}

    def param_shards(self) -> Mapping[str, RowShard]:
        """The parameters that are `LocalShard`s, of which each process has some rows, by name; by default none."""
        return {}

    def on_shards(self) -> Any:
        """The problem whose derivatives by the hyperparameters of `shards` are this process's own parts of sums.

        Those that are private have the rows of this process in it, and others all rows.
        """
        return self

    def hparam_rows(self) -> HparamRows:
        """The rows of `shards` in a problem of `on_shards`; by default there are none."""
        return HparamRows({})

    def inner_share_at(self: Any, step: int, ranks: Ranks) -> tuple[Any, float]:
        """The part of `inner_batch(step)` that this process computes, and its share.

        Override it if a process can read its part without the rest of the batch.

        Args:
            step: ≥ 0.
            ranks: the processes, all of which make this call.
        """
        return self.inner_share(self.inner_batch(step), ranks.rank, ranks.world)

    def on_ranks(self, ranks: Ranks) -> Any:
        """The problem as several processes share it: by default itself.

        Override it to refuse what has no parts, with a ValueError, or if the processes must know of each other.
        """
        return self

    @property
    def is_spread(self) -> bool:
        """Whether its losses are sums over several processes."""
        return False

    @property
    def peers(self) -> Peers:
        """The processes that evaluate the losses together; by default, this one is alone."""
        return ALONE

    def is_replicated(self, name: str) -> bool:
        """Whether all ranks hold the same parameter or hyperparameter of this name, and not each its own rows of it."""
        return name not in self.shards() and name not in self.param_shards()
