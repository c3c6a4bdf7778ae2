"""A problem whose parameters are spread over the ranks, of which each holds a shard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.local_shard import plain
from hypergrad.core.ranks import Peers, peers_of
from hypergrad.effect.buffer import Buffer
from hypergrad.effect.scope import Scoped
from hypergrad.model.sharded_module import ShardedModule
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.distributed.own_loss import NO_SECOND, OwnLoss
from hypergrad.problem.distributed.products_check import ExactProducts
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.problem.wrapper import Wrapper

_POLICIES = {
    None: MixedPrecisionPolicy(),
    "bf16-mixed": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32),
}
_LARGEST = 1_000_000
"""Parameters up to which products are compared with exact ones of the whole model. A judgement: a second or so."""
_PER = ("all", "tensor")
"""What one value of an effect may be for; others would be sharded as the parameters are."""


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
        precision: str | MixedPrecisionPolicy | None = None,
        device: torch.device | str | None = None,
        check: bool | Supervised = True,
    ) -> None:
        _require_served(problem)
        policy = _policy_of(precision)
        settings: dict[str, Any] = {"units": units, "precision": precision, "device": device}
        _require_effects(problem)
        if isinstance(check, Supervised):
            FullySharded(check, group, **settings)
        exact = ExactProducts.of(problem) if check is True and _is_small(problem) else None
        at, ranks = problem.device("train") if device is None else torch.device(device), Ranks.of(group)
        model = ShardedModule(problem.model, ranks, units, policy, at)
        super().__init__(problem.with_model(model).to(at))
        self.ranks, self._policy, self._start = ranks, policy, model.params()
        self._require_entries()
        if exact is not None:
            exact.require_close(self)

    @property
    def peers(self) -> Peers:
        return peers_of(self.ranks.group)

    def is_replicated(self, name: str) -> bool:
        return name not in self._start

    @property
    def model(self) -> ShardedModule:
        """The module whose parameters are sharded."""
        return self.problem.model  # type: ignore[return-value]

    @property
    def has_second_derivatives(self) -> bool:
        return False

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
        mine = {"problem": type(self.problem).__name__, "ranks": self.ranks.world, "formats": str(self._policy)}
        return {**super().settings(), **mine}

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
        """As promised, with whole parameters, on all ranks, which must all call it."""
        return self.problem.state_dicts(self.whole(params), hparams)

    def of_solver(self) -> list[str]:
        return self.problem.of_solver()

    def pictures(self) -> dict[str, tuple[int, ...]]:
        return self.problem.pictures()

    def pooled_targets(self) -> Tensor:
        return self.problem.pooled_targets()

    def on_examples(self, train: Tensor, dev: Tensor) -> "FullySharded":
        return self._on(self.problem.on_examples(train, dev))

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        both, wide = self.problem.joined(hparams)
        return self._on(both), wide

    def _on(self, problem: InnerProblem) -> "FullySharded":
        """Another problem with the same sharded module."""
        other = copy(self)
        other._modules = self._modules | {"problem": problem}
        return other

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

    def _require_entries(self) -> None:
        """Require that each rank holds a parameter: its norms must not be those of nothing.

        Raises:
            ValueError: if one holds none.
        """
        count = torch.tensor(float(sum(x.numel() for x in self._start.values()) == 0))
        (empty,) = self.ranks.total([count.to(plain(next(iter(self._start.values()))).device)])
        if empty.item() > 0:
            raise ValueError(
                f"hg.FullySharded needs parameters on each rank, but {empty.item():.0f} of {self.ranks.world} ranks "
                "would hold none, because tensors are divided along their first axis. Use fewer ranks, or "
                "hg.DataParallel."
            )


def _policy_of(precision: str | MixedPrecisionPolicy | None) -> MixedPrecisionPolicy:
    """The formats of FSDP2.

    Raises:
        ValueError: if there is no such precision.
    """
    if isinstance(precision, MixedPrecisionPolicy):
        return precision
    if precision not in _POLICIES:
        raise ValueError(
            f"hg.FullySharded.precision must be None, 'bf16-mixed' or a torch.distributed.fsdp.MixedPrecisionPolicy, "
            f"but it is {precision!r}."
        )
    return _POLICIES[precision]


def _is_small(problem: Supervised) -> bool:
    """True for a model whose exact products are computed.

    Raises:
        ValueError: if it is larger.
    """
    size = sum(x.numel() for x in problem.init_params().values())
    if size <= _LARGEST:
        return True
    raise ValueError(
        f"hg.FullySharded compares products with exact ones at the start, on one process, which needs at most "
        f"{_LARGEST:,} parameters, but the model has {size:,}. Give check=hg.Supervised(…) with a small copy of the "
        "model, such as one with fewer and narrower layers, or check=False."
    )


def _require_effects(problem: Supervised) -> None:
    """Require effects that are computed on shards.

    Raises:
        ValueError: if one is not.
    """
    for name, effect in problem.effects.declared.items():
        if isinstance(effect, Scoped) and effect.per not in _PER:
            raise ValueError(
                f"hg.FullySharded shards the parameters, but the hyperparameter {name!r} is a {type(effect).__name__} "
                f"per {effect.per!r}, whose entries belong to entries of these. Use per='all' or per='tensor', or "
                "hg.DataParallel."
            )
        if isinstance(effect, Buffer):
            raise ValueError(
                f"hg.FullySharded does not serve a hyperparameter that is a buffer of the model, but {name!r} is one. "
                "Use hg.DataParallel."
            )


def _require_served(problem: InnerProblem) -> None:
    """Require a problem that trains one module of the user, on several processes.

    Raises:
        TypeError: if the problem is of another kind.
        ValueError: if torch.distributed is not initialised.
    """
    if not isinstance(problem, Supervised):
        raise TypeError(
            f"hg.FullySharded shards the parameters of the model of an hg.Supervised, but the problem is a "
            f"{type(problem).__name__}. Use hg.DataParallel."
        )
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "hg.FullySharded needs processes that share the parameters, but torch.distributed is not initialised. "
            "Start the program with torchrun and call torch.distributed.init_process_group(), or leave it out."
        )
