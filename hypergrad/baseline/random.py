"""Random search."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.baseline.base import Search


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Search):
    """Independent uniform points in the box.

    Source: Bergstra & Bengio, "Random search for hyper-parameter optimization", JMLR (2012).
    """

    def points(self, start: Tensor, num_trials: int | None, losses: list[float]) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in itertools.count() if num_trials is None else range(num_trials):
            yield start + self.width * (2 * torch.rand(len(start), generator=generator, dtype=start.dtype) - 1)
