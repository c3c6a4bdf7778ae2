"""Sums over processes that can be differentiated to any order.

Two operations are each other's transpose, so that each one's derivative is the other:

    vary: the same on all ranks → each rank's own    forward: identity    backward: total
    total: each rank's own → the same on all ranks   forward: all-reduce  backward: vary

All ranks must call them in the same order, with tensors of the same shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function

from hypergrad.core.all_reduce import GROUPS, REHEARSAL, all_reduced
from hypergrad.core.all_reduce import Traffic as Traffic


@dataclass(frozen=True)
class Ranks:
    """The processes that share a computation, which each know their own place.

    Attributes:
        name: of the group of torch.distributed; "" for this process alone.
        rank: of this process, from 0.
        world: the number of processes.
    """

    name: str = ""
    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, group: dist.ProcessGroup | None) -> "Ranks":
        """Those of a group; if it is None, all processes, or this one alone if torch.distributed is not initialised."""
        if group is None and not (dist.is_available() and dist.is_initialized()):
            return cls()
        group = group or dist.group.WORLD
        assert group is not None  # there is one after init_process_group
        GROUPS[group.group_name] = group
        return cls(group.group_name, dist.get_rank(group), dist.get_world_size(group))

    @classmethod
    def rehearsed(cls, world: int) -> "Ranks":
        """The first of `world` ranks without the others: its all-reduces are counted, and return what it gave."""
        return cls(REHEARSAL, 0, world)

    @property
    def are_here(self) -> bool:
        """Whether there are the other ranks."""
        return self.name not in ("", REHEARSAL)

    @property
    def group(self) -> dist.ProcessGroup:
        """The group of torch.distributed."""
        return GROUPS[self.name]

    def vary(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The same tensors as each rank's own: what depends on them has derivatives that are summed over the ranks.

        Args:
            tensors: the same on all ranks; in a backward pass, the derivatives of all of them are one all-reduce.
        """
        return vary(self.name, *tensors)

    def vary_filled(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`vary` of what each rank may use another part of: a derivative by a tensor that a rank ignores is 0 there.

        With `vary` all ranks must depend on the same tensors.
        """
        return vary_filled(self.name, *tensors)

    def total(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The sums of the tensors over the ranks, the same on all of them, by one all-reduce for each dtype.

        Args:
            tensors: each rank's own, at least one, with shapes that are the same on all ranks.
        """
        return total(self.name, *tensors)


def vary(group: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`Ranks.vary`, for which a class of tensors may have a rule of its own."""
    if has_torch_function(tensors):
        return handle_torch_function(vary, tensors, group, *tensors)
    return _Vary.apply(group, *tensors)  # type: ignore[return-value]


def vary_filled(group: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`Ranks.vary_filled`, likewise."""
    if has_torch_function(tensors):
        return handle_torch_function(vary_filled, tensors, group, *tensors)
    return _VaryFilled.apply(group, *tensors)  # type: ignore[return-value]


def total(group: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`Ranks.total`, likewise."""
    if has_torch_function(tensors):
        return handle_torch_function(total, tensors, group, *tensors)
    return _Total.apply(group, *tensors)  # type: ignore[return-value]


class _Vary(Function):
    @staticmethod
    def forward(group: str, *xs: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(x.view_as(x) for x in xs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *_of_present(_Total, ctx.group, cotangents)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Vary.apply(ctx.group, *_filled(ctx, tangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, group: str, *xs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Vary.apply(group, *xs), in_dims[1:]


class _VaryFilled(_Vary):
    """`_Vary`, whose backward pass sums over the ranks what some of them do not have."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *_Total.apply(ctx.group, *_filled(ctx, cotangents))  # type: ignore[misc]

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _VaryFilled.apply(ctx.group, *_filled(ctx, tangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, group: str, *xs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _VaryFilled.apply(group, *xs), in_dims[1:]


class _Total(Function):
    @staticmethod
    def forward(group: str, *xs: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        sums: list[Any] = [None] * len(xs)
        for dtype in dict.fromkeys(x.dtype for x in xs):
            places = [k for k, x in enumerate(xs) if x.dtype == dtype]
            bucket = torch.cat([xs[k].reshape(-1) for k in places])
            pieces = all_reduced(bucket, group).split([xs[k].numel() for k in places])
            for k, piece in zip(places, pieces, strict=True):
                sums[k] = piece.view_as(xs[k])
        return tuple(sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *_of_present(_VaryFilled, ctx.group, cotangents)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Total.apply(ctx.group, *_filled(ctx, tangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, group: str, *xs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A rank has no batch of what its part ignores, such as a zero. The others do, and all send as much.
        pairs = zip(xs, in_dims[1:], strict=True)
        each = [x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0) for x, dim in pairs]
        return _Total.apply(group, *each), (0,) * len(xs)


def _keep(ctx: Any, inputs: Any) -> None:
    ctx.group, ctx.like = inputs[0], [(x.shape, x.dtype, x.device) for x in inputs[1:]]
    # Whether anything depends on a tensor must stay known: a zero is another thing than no dependence.
    ctx.set_materialize_grads(False)


def _of_present(kind: Any, group: str, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The operation on the tensors that there are; None for the others."""
    present = [x for x in tensors if x is not None]
    found = iter(kind.apply(group, *present) if present else ())
    return [None if x is None else next(found) for x in tensors]


def _filled(ctx: Any, tangents: Sequence[Tensor | None]) -> list[Tensor]:
    """The tangents, with zeros for those that are None."""
    pairs = zip(tangents, ctx.like, strict=True)
    return [torch.zeros(s, dtype=dtype, device=at) if t is None else t for t, (s, dtype, at) in pairs]
