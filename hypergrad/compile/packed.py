"""Nestings of tensors and other values, as a list of tensors and a key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hypergrad.core.torch_internals.trees import tree_flatten, tree_unflatten


@dataclass(frozen=True)
class Packed:
    """A nesting of tensors and other values as a list of tensors, because the arguments of a trace are tensors.

    Attributes:
        tensors: its tensors, outside any graph.
        key: what else a trace depends on: structure, shapes, precisions, devices, and the other values.
        unpack: from such tensors back to the nesting.
    """

    tensors: list[Tensor]
    key: Any
    unpack: Callable[[Sequence[Tensor]], Any]

    @classmethod
    def of(cls, nesting: Any) -> "Packed":
        """The nesting, packed."""
        values, structure = tree_flatten(nesting)
        is_tensor = [isinstance(value, Tensor) for value in values]
        tensors = [value.detach() for value in values if isinstance(value, Tensor)]
        fixed = [value for value in values if not isinstance(value, Tensor)]
        key = (structure, tuple((t.shape, t.dtype, t.device) for t in tensors), repr(fixed))

        def unpack(given: Sequence[Tensor]) -> Any:
            rest, others = iter(given), iter(fixed)
            return tree_unflatten([next(rest) if tensor else next(others) for tensor in is_tensor], structure)

        return cls(tensors, key, unpack)
