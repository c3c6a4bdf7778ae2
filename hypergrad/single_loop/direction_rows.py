"""Directions of λ where processes keep some rows of λ each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.hparam_rows import HparamRows

MapRows = Callable[[Tensor | Tensors], Any]
"""A function of what is shaped as λ in a memory: a flat vector, or named tensors."""


class DirectionRows:
    """What has to be added up of directions of λ; where no rows are spread, each method gives what it is given.

    A term by λ on one process is its part of a sum. A method forms what is linear in such terms, and takes the `summed`
    of it before anything else. The result has the rows of this process, and so has all that a memory keeps of λ.

    Args:
        rows: which rows this process keeps.
    """

    def __init__(self, rows: HparamRows) -> None:
        self._rows = rows

    def summed(self, direction: Tensor, hparams: Tensors) -> Tensor:
        """The rows of this process of a direction, flat, from the parts of all processes.

        Args:
            direction: linear in terms by λ, flat, shape (p,).
            hparams: λ, as the losses use it.
        """
        return flatten(self._rows.summed(unflatten(direction, hparams))) if self._rows else direction

    def kept(self, hparams: Tensors) -> Tensors:
        """λ as a memory keeps it, with the rows of this process, from that of the losses."""
        return self._rows.from_losses(hparams) if self._rows else hparams

    def for_losses(self, kept: Tensors) -> Tensors:
        """λ as the losses use it, from that of `kept`."""
        return self._rows.for_losses(kept) if self._rows else kept

    def norm(self, direction: Tensor, hparams: Tensors) -> Tensor:
        """The norm of a `summed` direction over all processes, shape ()."""
        if not self._rows:
            return torch.linalg.vector_norm(direction)
        return self._rows.norm(unflatten(direction, self.kept(hparams)))

    def dots(self, hparams: Tensors, *pairs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """The inner products of pairs of `summed` directions over all processes, each of shape ()."""
        if not self._rows:
            return [x @ y for x, y in pairs]
        like = self.kept(hparams)
        return self._rows.dots([(unflatten(x, like), unflatten(y, like)) for x, y in pairs])
