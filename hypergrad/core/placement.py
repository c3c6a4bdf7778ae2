"""Tensors in any nesting, on one device."""

from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.trees import tree_map


def placed(content: Any, device: torch.device | str) -> Any:
    """Tensors on a device, in any nesting of dicts, lists and tuples; other values are unchanged."""
    return tree_map(lambda part: part.to(device) if isinstance(part, Tensor) else part, content)
