"""Which transforms of torch.func, forward modes and batched backward passes are at work."""

from typing import Any

import torch
from torch import Tensor
from torch._C import _dispatch_key_parse, _dispatch_keys, _functorch  # type: ignore[attr-defined]
from torch._functorch import pyfunctorch
from torch.autograd import forward_ad

_BATCHED = _dispatch_key_parse("Batched")

peek_interpreter_stack = _functorch.peek_interpreter_stack
"""None outside all transforms of torch.func. torch shows this nowhere in public; without it, leave out what is done
outside transforms only: kernels with one derivative, and sums that keep one graph at a time."""
is_functorch_wrapped_tensor = _functorch.is_functorch_wrapped_tensor
"""Whether a tensor is one of a transform of torch.func, see `get_unwrapped`."""
get_unwrapped = _functorch.get_unwrapped
"""The tensor inside one of a transform, by which a graph is searched. Without it, make the search where there is no
transform, before it."""
TransformType = pyfunctorch.TransformType  # pyright: ignore[reportPrivateImportUsage]
"""The kinds of transforms, see `retrieve_all_functorch_interpreters`."""
retrieve_all_functorch_interpreters = pyfunctorch.retrieve_all_functorch_interpreters
"""All transforms at work, by which `argmin` knows its order, and wrong derivatives are refused. Without it, `argmin`
needs the order from its user, and what is wrong in nested forward mode is to be refused in any."""
temporarily_clear_interpreter_stack = pyfunctorch.temporarily_clear_interpreter_stack
"""A context outside all transforms, in which `argmin` solves. Without it, solve in the forward of a
`torch.autograd.Function` with `setup_context`, which sees no transform either."""


def forward_ad_level() -> int:
    """The level of forward mode, < 0 outside it.

    When it goes: try whether `forward_ad.make_dual` raises that there is no level.
    """
    return forward_ad._current_level


def remove_batch_dim(x: Tensor, level: int) -> Tensor:
    """The tensor with all columns of a backward pass with `is_grads_batched`, along dim 0.

    When it goes: drop the rule for "Batched" of `hypergrad::all_reduce`, which then is called column by column.
    """
    function: Any = torch._remove_batch_dim  # type: ignore[attr-defined]
    return function(x, level, 1, 0)


def add_batch_dim(x: Tensor, level: int) -> Tensor:
    """The inverse of `remove_batch_dim`; when it goes, do the same."""
    function: Any = torch._add_batch_dim  # type: ignore[attr-defined]
    return function(x, 0, level)


def is_batched(x: Tensor) -> bool:
    """Whether x is a batch inside a backward pass with `is_grads_batched`.

    When it goes: refuse such passes in the rule for "Batched" of `hypergrad::all_reduce` altogether.
    """
    return _dispatch_keys(x).has(_BATCHED)
