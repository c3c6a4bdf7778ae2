"""A problem whose parameters are spread over the ranks, of which each holds a shard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.ranks import Peers, peers_of
from hypergrad.core.row_shard import RowShard
from hypergrad.model.sharded_module import ShardedModule
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.distributed.own_loss import NO_SECOND, OwnLoss
from hypergrad.problem.distributed.products_check import ExactProducts
from hypergrad.problem.distributed.same_start import require_same_start
from hypergrad.problem.distributed.sharding_requirements import (
    is_small,
    policy_of,
    require_effects,
    require_entries,
    require_served,
)
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.problem.wrapper import Wrapper

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy


class FullySharded(Wrapper):
    """A supervised problem whose parameters do not fit one device: each rank holds a shard of them, under FSDP2.

    g(w, λ; batch) = Σ_r share_r g(w, λ; part_r) and f likewise, over the ranks r, as in `DataParallel`. Each rank
    computes on its own part of a batch, with the parameters of one unit of the model at a time, which are gathered for
    it. w, gradients, and all vectors of a solve are `LocalShard`s: the entries of this rank. λ and the hypergradient
    are the same on all ranks.

    FSDP2 has first derivatives alone. So what serves it are `Implicit` with `CentredDifferences`, CG or Neumann and
    without an error bar, and `SingleLoop` with `F2SA` or `SAMA`; all else is refused. See docs/fsdp.md.

    Args:
        problem: a `Supervised` whose parameters fit the memory of the host; the data are moved to `device`. It keeps
            its own copy of the parameters, so drop all references to it, and to its model.
        group: of torch.distributed; None for all processes.
        units: patterns of the names of the parts of the model whose parameters are gathered at once, such as
            ["layers.*"]; the rest is one unit. None finds the blocks that repeat.
        precision: None computes in the dtype of the parameters; "bf16-mixed" gathers and computes in bfloat16, while
            shards, gradients and all vectors keep the dtype of the parameters; or a policy of FSDP2.
        device: of the shards and the data, such as "cuda"; None for where the data are.
        check: whether to compare two products by differences with exact ones at the start. A model of more than 10⁶
            parameters needs a `Supervised` with a small copy of it here, of which the products are compared.

    Raises:
        ValueError: if the model is too large to be checked, or a rank would hold no parameter.

    Also raised, by what it calls: TypeError if the problem is no `Supervised`; ValueError if torch.distributed is not
    initialised, `precision` is unknown, the model cannot be served, or products differ from exact ones.
    """

    def __init__(
        self,
        problem: Supervised,
        group: dist.ProcessGroup | None = None,
        *,
        units: Sequence[str] | None = None,
        precision: "str | MixedPrecisionPolicy | None" = None,
        device: torch.device | str | None = None,
        check: bool | Supervised = True,
    ) -> None:
        require_served(problem)
        policy = policy_of(precision)
        settings: dict[str, Any] = {"units": units, "precision": precision, "device": device}
        require_effects(problem)
        if isinstance(check, Supervised):
            FullySharded(check, group, **settings)
        require_same_start(problem, peers_of(group), "FullySharded")
        exact = ExactProducts.of(problem) if check is True and is_small(problem) else None
        at, ranks = problem.device("train") if device is None else torch.device(device), Ranks.of(group)
        self._as_given = str(problem.model.module)  # FSDP2 changes the classes
        model = ShardedModule(problem.model, ranks, units, policy, at)
        super().__init__(problem.on_ranks(ranks).with_model(model).to(at))
        self.ranks, self._policy, self._start = ranks, policy, model.params()
        require_entries(ranks, self._start)
        if exact is not None:
            exact.require_close(self)

    @property
    def model(self) -> ShardedModule:
        """The module whose parameters are sharded."""
        return self.problem.model  # type: ignore[return-value]

    @property
    def peers(self) -> Peers:
        return peers_of(self.ranks.group)

    def param_shards(self) -> Mapping[str, RowShard]:
        return self.model.shards()

    @property
    def has_second_derivatives(self) -> bool:
        return False

    @property
    def is_spread(self) -> bool:
        return True

    @property
    def epsilon(self) -> float:
        """ε of the format inside the losses."""
        dtype = self._policy.param_dtype or next(iter(self._start.values())).dtype
        return torch.finfo(dtype).eps

    def init_params(self) -> Tensors:
        return {name: x.clone() for name, x in self._start.items()}

    def untied(self, hparams: Tensors) -> Tensors:
        return hparams

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self.problem.hyperparameters()

    def settings(self) -> dict[str, object]:
        found = {**super().settings(), "problem": type(self.problem).__name__, "model": self._as_given}
        return found if self._policy == policy_of(None) else {**found, "precision": str(self._policy)}

    def whole(self, params: Tensors) -> Tensors:
        """The whole tensors of shards, on all ranks, which must all call it."""
        return self.model.whole(params)

    def local(self, params: Tensors) -> Tensors:
        """The shards of this rank of whole tensors, which are the same on all ranks."""
        return self.model.local(params)

    def inner_parts(self, batch: Any) -> Parts | None:
        return None  # the losses are divided within, where gradients are summed in place

    def outer_parts(self, batch: Any) -> Parts | None:
        return None

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        problem = self.problem
        parts = self._own(problem.inner_parts, batch, problem.inner_share)
        return OwnLoss(self.model, problem.inner_loss, parts, "The inner loss", self.epsilon)(params, hparams)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        return InnerProblem.inner_loss_and_gradient(self, params, hparams, batch)

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        return self.inner_loss_and_gradient(params, hparams, batch)[1]

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        problem = self.problem
        parts = self._own(problem.outer_parts, batch, problem.outer_share)
        return OwnLoss(self.model, problem.outer_loss, parts, "The outer loss", self.epsilon)(params, hparams)

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """Not served.

        Raises:
            ValueError: always: the ranks have different outputs.
        """
        raise ValueError(NO_SECOND)

    def metrics(self, params: Tensors, hparams: Tensors) -> Mapping[str, Tensor | float]:
        """As promised; each rank computes on all examples, so that all have the same numbers."""
        with self._holding(params):
            return self.problem.metrics(params, hparams)

    def test_losses(self, params: Tensors, hparams: Tensors) -> Tensor | None:
        with self._holding(params):
            return self.problem.test_losses(params, hparams)

    def trained_module(self, params: Tensors, hparams: Tensors) -> nn.Module:
        """As promised, with whole parameters, on all ranks, which must all call it."""
        return self.problem.trained_module(self.whole(params), hparams)

    def state_dicts(self, params: Tensors, hparams: Tensors) -> dict[str, Mapping[str, Any]]:
        """As promised, with whole parameters, on the CPU of the first rank; all must call it, and the others get none.

        Running averages of the model are evaluated on the train examples, for which all ranks gather it on `device`.
        """
        whole = self.whole(params) if self.model.averages else self.model.on_first(params)
        return self.problem.state_dicts(whole, hparams) if whole and self.peers.is_first else {}

    def of_solver(self) -> list[str]:
        return self.problem.of_solver()

    def pictures(self) -> dict[str, tuple[int, ...]]:
        return self.problem.pictures()

    def pooled_targets(self) -> Tensor:
        return self.problem.pooled_targets()

    def on_examples(self, train: Tensor, dev: Tensor) -> Self:
        return self.around(self.problem.on_examples(train, dev))

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        both, wide = self.problem.joined(hparams)
        return self.around(both), wide

    @torch.no_grad()
    def _own(
        self,
        divided: Callable[[Any], Parts | None],
        batch: Any,
        part: Callable[[Any, int, int], tuple[Any, float]],
    ) -> list[tuple[Any, float]]:
        """What this rank computes of each part of a batch, with its share."""
        found = []
        for one, share in divided(batch) or [(batch, 1.0)]:
            own, own_share = part(one, self.ranks.rank, self.ranks.world)
            found.append((own, share * own_share))
        return found

    @contextmanager
    def _holding(self, params: Tensors) -> Iterator[None]:
        """A context in which the model computes with these parameters, without derivatives."""
        self.model.put(params)
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.release()
