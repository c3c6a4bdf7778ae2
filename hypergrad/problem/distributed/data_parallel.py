"""A problem whose examples are spread over processes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.hparam_rows import HparamRows
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.order import is_first_order
from hypergrad.core.ranks import ALONE, Peers, peers_of
from hypergrad.core.row_shard import RowShard
from hypergrad.core.total_loss import total_loss
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.distributed.row_shards import shards_of
from hypergrad.problem.distributed.same_start import require_same_start
from hypergrad.problem.distributed.sharing import require_one_rank_can
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.problem.wrapper import Wrapper


class OwnPart(NamedTuple):
    """What this process has of a batch: its part, as the problem takes batches, and the share of that part."""

    batch: Any
    share: float


class DataParallel(Wrapper):
    """Another problem, each of whose batches is computed in parts, one by each process.

    g(w, λ; batch) = Σ_r share_r g(w, λ; part_r) and f likewise, over the ranks r. w and λ are the same on all ranks,
    and so are the losses and their derivatives, to the last bit: these are sums over the ranks of what each computes on
    its own part, by all-reduces. So every estimator, tape and linear solver runs as on one process, as long as all
    ranks run it with the same arguments. The random draws of a training step depend on the rank.

    With one process it is the problem itself. See docs/distributed.md.

    Args:
        problem: gives its parts by `inner_share` and `outer_share`, as `Supervised` does; the same on all ranks.
        group: of torch.distributed; None for all processes, or for one if torch.distributed is not initialised. Or
            the ranks themselves, if these are known to hold the same problem.
        sharded: the names of hyperparameters of which `Trainer` keeps some rows on each rank, with their part of the
            optimiser's state, see docs/sharded_hyperparameters.md. Elsewhere they are as the others.

    Also raised, by what it calls: ValueError if the optimality condition of the problem is not the gradient of its
    loss, or its losses are sums over processes already, or it has an L1 penalty, or a loss that is not the sum of those
    of its parts, or a hyperparameter of `sharded` cannot be; NotImplementedError if it has no parts; RankError on all
    ranks, if they do not hold the same data, settings and initial values, which are compared once, by a digest.
    """

    _is_on_shards = False

    def __init__(
        self, problem: InnerProblem, group: dist.ProcessGroup | Ranks | None = None, sharded: Sequence[str] = ()
    ) -> None:
        super().__init__(problem)
        require_one_rank_can(problem)
        self.ranks = group if isinstance(group, Ranks) else Ranks.of(group)
        self._shards = shards_of(problem, self.ranks, sharded)
        self._unsummed: frozenset[str] = frozenset()
        if self.is_spread:
            if not isinstance(group, Ranks):
                require_same_start(problem, self.peers, type(self).__name__)
            self.problem = problem.on_ranks(self.ranks)
            self.inner_batch(0)  # an error now, if the problem has no parts
            self.outer_batch(0)

    if not TYPE_CHECKING:

        @property
        def problem(self) -> InnerProblem:
            """The other problem: torch finds a module among the attributes of another one in a microsecond."""
            return self._modules["problem"]

    @property
    def is_spread(self) -> bool:
        """Whether there is more than one process."""
        return self.ranks.world > 1

    def untied(self, hparams: Tensors) -> Tensors:
        return hparams

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self.problem.hyperparameters()

    def shards(self) -> Mapping[str, RowShard]:
        return self._shards

    def on_shards(self) -> InnerProblem:
        if not self._shards:
            return self
        other = self.with_own_terms(self._shards)
        other._is_on_shards = True
        return other

    def hparam_rows(self) -> HparamRows:
        return HparamRows(self._shards if self._is_on_shards else {})

    @property
    def peers(self) -> Peers:
        return peers_of(self.ranks.group) if self.is_spread and self.ranks.are_here else ALONE

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "problem": type(self.problem).__name__}

    def inner_batch(self, step: int) -> Any:
        if not self.is_spread:
            return self.problem.inner_batch(step)
        private = [shard for shard in self._shards.values() if shard.is_private] if self._is_on_shards else []
        if private:
            return OwnPart(*self.problem.owned_share(self.problem.inner_batch(step), self.ranks.rank, private[0].rows))
        return OwnPart(*self.problem.inner_share_at(step, self.ranks))

    def outer_batch(self, step: int) -> Any:
        return self._own_dev(self.problem.outer_batch(step))

    def whole_outer_batch(self) -> Any:
        return self._own_dev(self.problem.whole_outer_batch())

    def inner_parts(self, batch: Any) -> Parts | None:
        return None if self.is_spread else self.problem.inner_parts(batch)  # each rank divides its own part

    def outer_parts(self, batch: Any) -> Parts | None:
        return None if self.is_spread else self.problem.outer_parts(batch)

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        if not self.is_spread:
            return self.problem.inner_loss(params, hparams, batch)
        return self._total(lambda w, hp: Oracle(self.problem, hp, batch.batch).loss(w), params, hparams, batch.share)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        if not self.is_spread:
            return self.problem.inner_loss_and_gradient(params, hparams, batch)
        w, hp = self._own(params), self._own_hparams(hparams)
        loss, grad = Oracle(self.problem, hp, batch.batch)(w)
        total, *sums = self.ranks.total([batch.share * x for x in (loss, *grad.values())])
        return total, dict(zip(grad, sums, strict=True))

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        return self.inner_loss_and_gradient(params, hparams, batch)[1]

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The outputs of the model on this rank's own part of a batch."""
        if not self.is_spread:
            return self.problem.outputs(params, hparams, batch)
        return self.problem.outputs(self._own(params), self._own_hparams(hparams), batch.batch)

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        if not self.is_spread:
            return self.problem.loss_of_outputs(outputs, params, hparams, batch)
        w, hp = self._own(params), self._own_hparams(hparams)
        loss = self.problem.loss_of_outputs(outputs, w, hp, batch.batch)
        (total,) = self.ranks.total([batch.share * loss])
        return total

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        if not self.is_spread:
            return self.problem.outer_loss(params, hparams, batch)
        return self._total(
            partial(accumulated_outer_loss, self.problem, batch=batch.batch), params, hparams, batch.share
        )

    def solution(self, hparams: Tensors) -> Tensors:
        return self.problem.solution(hparams)

    def of_solver(self) -> list[str]:
        return self.problem.of_solver()

    def pictures(self) -> Mapping[str, tuple[int, ...]]:  # type: ignore[override]
        return self.problem.pictures()

    def pooled_targets(self) -> Tensor:
        return self.problem.pooled_targets()

    def on_examples(self, train: Tensor, dev: Tensor) -> "DataParallel":
        return self._on(self.problem.on_examples(train, dev))

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        both, wide = self.problem.joined(hparams)
        return self._on(both), wide

    def with_own_terms(self, names: Collection[str]) -> "DataParallel":
        """The same problem, whose derivatives with respect to some hyperparameters are not summed over the ranks.

        They are this rank's own terms, of a sum that is left to the caller.
        """
        other = copy(self)
        other._unsummed = self._unsummed.union(names)
        return other

    @property
    def own_terms(self) -> frozenset[str]:
        """The hyperparameters by which derivatives are this rank's own terms."""
        return self._unsummed

    def _on(self, problem: InnerProblem) -> "DataParallel":
        """Another problem on the same ranks, whose hyperparameters are whole on each."""
        return DataParallel(problem, self.ranks)

    def _total(
        self, loss: Callable[[Tensors, Tensors], Tensor], params: Tensors, hparams: Tensors, share: float
    ) -> Tensor:
        """The sum over the ranks of share · loss(w, λ), with its gradient if nothing is differentiated twice."""
        num = len(params)

        def own(*tensors: Tensor) -> Tensor:
            w, hp = dict(zip(params, tensors[:num], strict=True)), dict(zip(hparams, tensors[num:], strict=True))
            return share * loss(w, hp)

        tensors = [*params.values(), *hparams.values()]
        if torch.is_grad_enabled() and is_first_order(tensors[0]):
            own_terms = [num + k for k, name in enumerate(hparams) if name in self._unsummed]
            return total_loss(self.ranks, own, tensors, filled=range(num), own_terms=own_terms)
        (total,) = self.ranks.total([own(*self._own(params).values(), *self._own_hparams(hparams).values())])
        return total

    def _own(self, params: Tensors) -> Tensors:
        """w as this rank's own, some of which its part of a batch may not use."""
        if not torch.is_grad_enabled():
            return params
        return dict(zip(params, self.ranks.vary_filled(list(params.values())), strict=True))

    def _own_hparams(self, hparams: Tensors) -> Tensors:
        """λ as this rank's own, apart from what is not summed. Whether a loss uses it must be known of each."""
        names = [name for name in hparams if name not in self._unsummed]
        if not names or not torch.is_grad_enabled():
            return hparams
        return hparams | dict(zip(names, self.ranks.vary([hparams[name] for name in names]), strict=True))

    def _own_dev(self, batch: Any) -> Any:
        if not self.is_spread:
            return batch
        return OwnPart(*self.problem.outer_share(batch, self.ranks.rank, self.ranks.world))
