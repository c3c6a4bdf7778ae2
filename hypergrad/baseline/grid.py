"""Grid search."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.baseline.base import Search

_MOST_CELLS = 10**6
"""A larger grid would not finish."""


@dataclass(frozen=True, kw_only=True)
class GridSearch(Search):
    """The centres of the k^n ≤ `num_trials` cells of a regular grid in the box, row by row.

    If the number of trials is not known in advance, grids with 2^n, 4^n, 8^n, … cells follow each other.
    """

    def points(self, start: Tensor, num_trials: int | None, losses: list[float]) -> Iterator[Tensor]:
        n = len(start)
        k = 2 if num_trials is None else int((num_trials + 0.5) ** (1 / n))
        if num_trials != 0 and (k < 2 or k**n > _MOST_CELLS):
            met = "is not a number of trials" if num_trials is None else f"is {num_trials}"
            raise ValueError(
                f"A grid over {n} hyperparameters needs at least 2^{n} = {2**n:.3g} trials, but the budget {met}; use "
                "method=random or method=tpe, or hypergradients."
            )
        yield from self._grid(start, k)
        while num_trials is None:
            k *= 2
            yield from self._grid(start, k)

    def _grid(self, start: Tensor, k: int) -> Iterator[Tensor]:
        ticks = (torch.arange(k, dtype=start.dtype) + 0.5) / max(k, 1) * 2 - 1
        for cell in itertools.product(ticks.tolist(), repeat=len(start)):
            yield start + self.width * torch.tensor(cell, dtype=start.dtype)
