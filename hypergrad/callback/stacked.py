"""Tuples of many tensors as one tensor, as files hold them, because each tensor in a file has a cost of its own."""

from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.trees import tree_map

_NAME = "rows of a tuple"
_MANY = 8
"""Tensors from which on a tuple is stacked. A judgement: fewer are as quick one by one."""


def stacked(content: Any) -> Any:
    """The content with each tuple of many tensors of one shape, dtype and device as one tensor, to be unstacked."""
    return tree_map(lambda x: {_NAME: torch.stack(x)} if _is_many(x) else x, content, is_leaf=_is_many)


def unstacked(content: Any) -> Any:
    """The content as it was before `stacked`."""
    return tree_map(lambda x: x[_NAME].unbind() if _is_stack(x) else x, content, is_leaf=_is_stack)


def _is_many(x: Any) -> bool:
    if type(x) is not tuple or len(x) < _MANY or not all(isinstance(row, Tensor) for row in x):
        return False
    return len({(row.shape, row.dtype, row.device) for row in x}) == 1


def _is_stack(x: Any) -> bool:
    return isinstance(x, dict) and x.keys() == {_NAME}
