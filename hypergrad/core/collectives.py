"""Sums over processes that can be differentiated to any order.

Two operations are each other's transpose, so that each one's derivative is the other:

    vary: the same on all ranks → each rank's own    forward: identity    backward: total
    total: each rank's own → the same on all ranks   forward: all-reduce  backward: vary

All ranks must call them in the same order, with tensors of the same shapes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C import _dispatch_key_parse, _dispatch_keys  # type: ignore[attr-defined]
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function

from hypergrad.core.order import are_plain

_GROUPS: dict[str, dist.ProcessGroup] = {}
"""The groups by name: an operation of torch takes no group as an argument."""
_REHEARSAL = "rehearsal"
"""The name of a group that is not there."""
_BATCHED = _dispatch_key_parse("Batched")
_LEVEL = 1
"""The level of a batched backward pass that is in no other one."""


@dataclass
class Traffic:
    """What this process sent in all-reduces.

    Attributes:
        calls: all-reduces.
        numbers: entries of all tensors in them.
    """

    calls: int = 0
    numbers: int = 0

    @contextmanager
    def counting(self) -> Iterator["Traffic"]:
        """Add what is sent within the context, also if an error ends it."""
        calls, numbers = _TOTAL.calls, _TOTAL.numbers
        try:
            yield self
        finally:
            self.calls += _TOTAL.calls - calls
            self.numbers += _TOTAL.numbers - numbers


_TOTAL = Traffic()


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
        _GROUPS[group.group_name] = group
        return cls(group.group_name, dist.get_rank(group), dist.get_world_size(group))

    @classmethod
    def rehearsed(cls, world: int) -> "Ranks":
        """The first of `world` ranks without the others: its all-reduces are counted, and return what it gave."""
        return cls(_REHEARSAL, 0, world)

    @property
    def group(self) -> dist.ProcessGroup:
        """The group of torch.distributed."""
        return _GROUPS[self.name]

    def vary(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The same tensors as each rank's own: what depends on them has derivatives that are summed over the ranks.

        Args:
            tensors: the same on all ranks; in a backward pass, the derivatives of all of them are one all-reduce.
        """
        return vary(self.name, *tensors)

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


def total(group: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`Ranks.total`, likewise."""
    if has_torch_function(tensors):
        return handle_torch_function(total, tensors, group, *tensors)
    return _Total.apply(group, *tensors)  # type: ignore[return-value]


def _reduce(x: Tensor, group: str) -> Tensor:
    """Sum a contiguous tensor of this process alone over the ranks of a group, in place."""
    _TOTAL.calls += 1
    _TOTAL.numbers += x.numel()
    if group != _REHEARSAL:
        dist.all_reduce(x, group=_GROUPS[group])
    return x


@torch.library.custom_op("hypergrad::all_reduce", mutates_args=())
def _all_reduce(x: Tensor, group: str) -> Tensor:
    """The sum of x over the ranks of a group.

    An operation of its own has a rule for batches, without which a batched backward pass would be wrong.
    """
    return _reduce(x.clone(memory_format=torch.contiguous_format), group)


@_all_reduce.register_fake
def _like(x: Tensor, group: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _each_column(info: Any, in_dims: Any, x: Tensor, group: str) -> tuple[Tensor, Any]:
    return _all_reduce(x, group), in_dims[0]  # a sum over ranks is one for each entry


_all_reduce.register_vmap(_each_column)


@torch.library.impl("hypergrad::all_reduce", "Batched")
def _all_columns(x: Tensor, group: str) -> Tensor:
    """The rule for `is_grads_batched`, which does not know that of `torch.vmap` and would send column by column."""
    inner = torch._remove_batch_dim(x, _LEVEL, 1, 0)  # type: ignore[attr-defined]
    if _is_batched(inner):
        raise NotImplementedError("A batched backward pass inside another one cannot be summed over processes.")
    return torch._add_batch_dim(_all_reduce(inner, group), 0, _LEVEL)  # type: ignore[attr-defined]


def _is_batched(x: Tensor) -> bool:
    """Whether x is a batch inside a backward pass with `is_grads_batched`."""
    return _dispatch_keys(x).has(_BATCHED)


def _sum(bucket: Tensor, group: str) -> Tensor:
    """The sum over the ranks of a new tensor, which is not copied once more where it is a plain one."""
    plain = are_plain((bucket,)) and not _is_batched(bucket)
    return _reduce(bucket, group) if plain else _all_reduce(bucket, group)


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


class _Total(Function):
    @staticmethod
    def forward(group: str, *xs: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        sums: list[Any] = [None] * len(xs)
        for dtype in dict.fromkeys(x.dtype for x in xs):
            places = [k for k, x in enumerate(xs) if x.dtype == dtype]
            bucket = torch.cat([xs[k].reshape(-1) for k in places])
            pieces = _sum(bucket, group).split([xs[k].numel() for k in places])
            for k, piece in zip(places, pieces, strict=True):
                sums[k] = piece.view_as(xs[k])
        return tuple(sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *_of_present(_Vary, ctx.group, cotangents)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Total.apply(ctx.group, *_filled(ctx, tangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, group: str, *xs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Total.apply(group, *xs), in_dims[1:]


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
