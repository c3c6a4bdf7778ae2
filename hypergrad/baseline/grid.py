"""Grid search."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.baseline.base import Search

_MOST_CELLS = 10**6


@dataclass(frozen=True, kw_only=True)
class GridSearch(Search):
    """The centres of a regular grid of k^n ≤ `num_trials` cells of the box, row by row.

    Where the number of trials is not known beforehand, grids of 2^n, 4^n, 8^n, … cells one after the other.
    """

    def points(self, start: Tensor, num_trials: int | None, losses: list[float]) -> Iterator[Tensor]:
        n = len(start)
        k = 2 if num_trials is None else int((num_trials + 0.5) ** (1 / n))
        if num_trials != 0 and (k < 2 or k**n > _MOST_CELLS):
            met = "is not a number of trials" if num_trials is None else f"is {num_trials}"
            raise ValueError(
                f"A grid over {n} hyperparameters needs at least 2^{n} = {2**n:.3g} trials, but the budget {met}; use "
                "method=random or method=tpe, or a gradient."
            )
        yield from self._grid(start, k)
        while num_trials is None:
            k *= 2
            yield from self._grid(start, k)

    def _grid(self, start: Tensor, k: int) -> Iterator[Tensor]:
        ticks = (torch.arange(k, dtype=start.dtype) + 0.5) / max(k, 1) * 2 - 1
        for cell in itertools.product(ticks.tolist(), repeat=len(start)):
            yield start + self.width * torch.tensor(cell, dtype=start.dtype)
