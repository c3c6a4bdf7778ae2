"""Batches as lists of tensors, for compiled functions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.trees import TreeSpec, tree_flatten, tree_leaves, tree_unflatten


@dataclass(frozen=True)
class Batches:
    """What the batches of some steps have in common.

    Attributes:
        structure: how a batch is nested.
        parts: its leaves: the shape, dtype and device of a tensor, or the value of anything else, equal at each step.
    """

    structure: TreeSpec
    parts: tuple[Any, ...]

    @classmethod
    def of(cls, batch: Any) -> "Batches | None":
        """The kind of a batch; None if it holds something other than tensors, numbers and strings."""
        leaves, structure = tree_flatten(batch)
        if not all(x is None or isinstance(x, Tensor | bool | int | float | str) for x in leaves):
            return None
        kinds = (_Kind(x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x for x in leaves)
        return cls(structure, tuple(kinds))

    def tensors(self, batch: Any) -> list[Tensor]:
        """The tensors of a batch, contiguous."""
        return [x.detach().contiguous() for x in tree_leaves(batch) if isinstance(x, Tensor)]

    def fitting(self, batch: Any) -> list[Tensor] | None:
        """The tensors of a batch of this kind, contiguous; None if it is of another."""
        leaves, structure = tree_flatten(batch)
        if structure != self.structure:
            return None
        if not all(
            p.fits(x) if isinstance(p, _Kind) else _are_same(x, p) for x, p in zip(leaves, self.parts, strict=True)
        ):
            return None
        return [x.detach().contiguous() for x in leaves if isinstance(x, Tensor)]

    def assemble(self, tensors: Iterable[Tensor]) -> Any:
        """The batch of one step from its tensors; of an iterator it takes no more than these."""
        remaining = iter(tensors)
        return tree_unflatten([next(remaining) if isinstance(p, _Kind) else p for p in self.parts], self.structure)


@dataclass(frozen=True)
class _Kind:
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def fits(self, x: Any) -> bool:
        return isinstance(x, Tensor) and (x.shape, x.dtype, x.device) == (self.shape, self.dtype, self.device)


def are_equal(a: Any, b: Any) -> bool:
    """Whether two batches, any nesting of tensors and values, are equal."""
    if a is b:
        return True
    (values, structure), (others, other_structure) = tree_flatten(a), tree_flatten(b)
    return structure == other_structure and all(_are_same(x, y) for x, y in zip(values, others, strict=True))


def _are_same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x is y or torch.equal(x, y)
    return bool(x is y or x == y)
