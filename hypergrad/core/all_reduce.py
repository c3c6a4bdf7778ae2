"""All-reduces over a group of torch.distributed, counted, as an operation of torch that has a rule for batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hypergrad.core.order import are_plain
from hypergrad.core.torch_internals.transforms import add_batch_dim, is_batched, remove_batch_dim

GROUPS: dict[str, dist.ProcessGroup] = {}
"""The groups by name: an operation of torch takes no group as an argument."""
REHEARSAL = "rehearsal"
"""The name of a group that is not there."""
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


def _reduce(x: Tensor, group: str) -> Tensor:
    """Sum a contiguous tensor of this process alone over the ranks of a group, in place."""
    _TOTAL.calls += 1
    _TOTAL.numbers += x.numel()
    if group != REHEARSAL:
        dist.all_reduce(x, group=GROUPS[group])
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
    inner = remove_batch_dim(x, _LEVEL)
    if is_batched(inner):
        raise NotImplementedError("A batched backward pass inside another one cannot be summed over processes.")
    return add_batch_dim(_all_reduce(inner, group), _LEVEL)


def all_reduced(bucket: Tensor, group: str) -> Tensor:
    """The sum over the ranks of a group of a new tensor, which is changed in place where it is a plain one."""
    plain = are_plain((bucket,)) and not is_batched(bucket)
    return _reduce(bucket, group) if plain else _all_reduce(bucket, group)
