"""Batches of several steps as tensors, for compiled functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


@dataclass(frozen=True)
class Batches:
    """What the batches of some steps have in common.

    Attributes:
        structure: how a batch is nested.
        parts: its leaves: the shape, dtype and device of a tensor, or the value of anything else, equal at each step.
        is_stacked: for each of the tensors, whether it differs between steps.
    """

    structure: TreeSpec
    parts: tuple[Any, ...]
    is_stacked: tuple[bool, ...]

    @classmethod
    def of(cls, batches: Sequence[Any]) -> "Batches | None":
        """The common structure of one or more batches; None if they differ in more than the values of tensors."""
        flat = [tree_flatten(batch) for batch in batches]
        (first, structure) = flat[0]
        parts = _parts(first)
        if parts is None or any(other != structure or _parts(values) != parts for values, other in flat):
            return None
        is_stacked = (
            any(values[k] is not value for values, _ in flat)
            for k, value in enumerate(first)
            if isinstance(value, Tensor)
        )
        return cls(structure, parts, tuple(is_stacked))

    def tensors(self, batches: Sequence[Any]) -> list[Tensor]:
        """The tensors of batches of this kind, stacked where they differ."""
        columns = zip(*([x for x in tree_flatten(batch)[0] if isinstance(x, Tensor)] for batch in batches), strict=True)
        return [torch.stack(xs) if moves else xs[0] for xs, moves in zip(columns, self.is_stacked, strict=True)]

    def at(self, tensors: Sequence[Tensor], k: int) -> list[Tensor]:
        """The tensors of the step that is k steps after the first."""
        return [x[k] if moves else x for x, moves in zip(tensors, self.is_stacked, strict=True)]

    def assemble(self, tensors: Sequence[Tensor]) -> Any:
        """The batch of one step from its tensors."""
        remaining = iter(tensors)
        return tree_unflatten([next(remaining) if isinstance(p, _Kind) else p for p in self.parts], self.structure)


@dataclass(frozen=True)
class _Kind:
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def _parts(leaves: Sequence[Any]) -> tuple[Any, ...] | None:
    """The kinds of tensors and the plain values; None if something is neither."""
    if not all(x is None or isinstance(x, Tensor | bool | int | float | str) for x in leaves):
        return None
    return tuple(_Kind(x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x for x in leaves)


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
