"""A module whose parameters are spread over the ranks, under FSDP2."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.local_shard import LocalShard, plain
from hypergrad.core.row_shard import RowShard
from hypergrad.core.torch_internals.modules import buffers_of
from hypergrad.model.batch_statistics import Moments, normalizing_by
from hypergrad.model.blocks import blocks_of
from hypergrad.model.calling import seeded
from hypergrad.model.copying import copied
from hypergrad.model.pure_module import PureModule

if TYPE_CHECKING:  # each function imports what it uses of FSDP2, which takes most of a second
    from torch.distributed.fsdp import MixedPrecisionPolicy


class ShardedModule(PureModule):
    """A copy of a module, of whose parameters each rank holds a shard; it computes with those that were `put` there.

    A call gathers the parameters of one unit at a time, computes with them and drops them again, as FSDP2 does. So all
    ranks must call it equally often, each with inputs of its own. `params` of a call are not read. The gradients of its
    parameters are sums over the ranks.

    Args:
        model: what is copied.
        ranks: the ranks that share the parameters.
        units: patterns of the names of the parts that are gathered at once, besides the rest; see `units_of`.
        policy: in which formats parameters are gathered and gradients are reduced.
        device: of the shards.

    Also raised, by what it calls: ValueError if it recomputes activations, or a pattern matches nothing.
    """

    def __init__(
        self,
        model: PureModule,
        ranks: Ranks,
        units: Sequence[str] | None,
        policy: "MixedPrecisionPolicy",
        device: torch.device,
    ) -> None:
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.fsdp import fully_shard

        nn.Module.__init__(self)
        _require_servable(model)
        lean = copy(model)
        lean._template = model._template.without_values()
        vars(self).update(vars(copied(lean)))
        self.ranks, self._buffers_as_given = ranks, dict(self.module.named_buffers())
        self._cast_buffers(policy.param_dtype)
        mesh = DeviceMesh.from_group(ranks.group, device.type)
        for name in units_of(self.module, units):
            fully_shard(self.module.get_submodule(name), mesh=mesh, mp_policy=policy)
        # Only the outputs of the whole are cast back: within, each unit would cast what the next one casts again.
        dtype = next(iter(model.params().values())).dtype
        fully_shard(self.module, mesh=mesh, mp_policy=_with_outputs_in(policy, dtype))

    def params(self) -> Tensors:
        """Copies of the shards of this rank, by name."""
        return {name: LocalShard.of(x.detach().clone(), self.ranks) for name, x in self._local().items()}

    def shards(self) -> dict[str, RowShard]:
        """Which rows of the whole tensors the shards are, by name."""
        return {name: RowShard(self.ranks, self._sharded(name).shape[0]) for name in self._trained}

    @torch.no_grad()
    def put(self, params: Tensors) -> None:
        """Let the module have these parameters, which are copied into the memory of its shards."""
        for name, x in self._local().items():
            x.copy_(plain(params[name]))

    def take_gradients(self) -> list[Tensor | None]:
        """The gradients since the last call, as shards in the order of the parameters; None where there is none."""
        found: list[Tensor | None] = []
        for name in self._trained:
            p = self.module.get_parameter(name)
            grad, p.grad = p.grad, None
            # FSDP2 takes the mean over the ranks.
            found.append(None if grad is None else grad.to_local().mul_(self.ranks.world))  # type: ignore[attr-defined]
        return found

    def release(self) -> None:
        """Drop gathered parameters, which would otherwise be used again when other ones have been put."""
        from torch.distributed.fsdp import FSDPModule

        for part in self.module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()

    def whole(self, params: Tensors) -> Tensors:
        """The whole tensors, on all ranks."""
        from torch.distributed.tensor import DTensor

        found: Tensors = {}
        for name, x in params.items():
            p = self._sharded(name)
            spread = DTensor.from_local(plain(x), p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
            found[name] = spread.full_tensor()
        return found

    def on_first(self, params: Tensors) -> Tensors:
        """The whole tensors on the CPU of the first rank, frozen ones too; none on the others. All must call it."""
        frozen = {name: p for name, p in self.module.named_parameters() if name not in params}
        found: Tensors = {}
        for name in [*params, *frozen]:
            whole = self.whole({name: params[name]})[name] if name in params else self._sharded(name).full_tensor()
            if self.ranks.rank == 0:
                found[name] = whole.detach().cpu()
        return found

    def local(self, tensors: Tensors) -> Tensors:
        """The shards of this rank of whole tensors, which are the same on all ranks; copies."""
        found: Tensors = {}
        for name, x in tensors.items():
            pieces, rank = torch.chunk(x, self.ranks.world), self.ranks.rank
            own = pieces[rank] if rank < len(pieces) else x[:0]
            found[name] = LocalShard.of(own.to(self._sharded(name).to_local()).clone(), self.ranks)
        return found

    def trained(self, values: Tensors, batches: Iterable[Any]) -> nn.Module:
        """As promised, on all ranks, from whole tensors."""
        frozen = [name for name, _ in self.module.named_parameters() if name not in values]
        whole = {name: self._sharded(name).full_tensor() for name in frozen}
        return super().trained(self._buffers_as_given | whole | values, batches)

    @contextmanager
    def calling(
        self, params: Tensors, device: torch.device, step: int | None, moments: Moments | None = None
    ) -> Iterator[None]:
        twice = self._kernels.differ and step is not None and self._kernels.draw
        normalizing = nullcontext() if moments is None else normalizing_by(moments)
        random = seeded(device, self._seed, step) if self._draws else nullcontext()
        with self._mode(device, step is not None, twice), normalizing, random:
            yield

    def _cast_buffers(self, dtype: torch.dtype | None) -> None:
        """Let buffers have the format of gathered parameters, which FSDP2 leaves to its user."""
        for part in self.module.modules() if dtype is not None else ():
            for name, x in buffers_of(part).items():
                if x is not None and x.is_floating_point():
                    buffers_of(part)[name] = x.to(dtype)

    def _local(self) -> Tensors:
        return {name: self._sharded(name).to_local() for name in self._trained}

    def _sharded(self, name: str) -> Any:
        return self.module.get_parameter(name)


def units_of(module: nn.Module, units: Sequence[str] | None) -> list[str]:
    """The names of the parts that are gathered at once; None finds blocks that repeat, see `blocks_of`.

    Also raised, by what it calls: TypeError or ValueError if a pattern is none, or matches nothing.
    """
    if units is not None:
        return blocks_of(module, units, "units")
    try:
        return blocks_of(module, True)
    except ValueError:
        return []


def _require_servable(model: PureModule) -> None:
    """Require a module that keeps its activations.

    Raises:
        ValueError: if it does not.
    """
    if model._blocks is not None:
        raise ValueError(
            "hg.FullySharded does not recompute activations: leave recompute out of the problem, or use "
            "hg.DataParallel."
        )


def _with_outputs_in(policy: "MixedPrecisionPolicy", dtype: torch.dtype) -> "MixedPrecisionPolicy":
    return (
        policy if policy.param_dtype is None or policy.output_dtype is not None else replace(policy, output_dtype=dtype)
    )
