"""The promise of a family of tasks: small data sets, each to be learned from few examples."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch

from hypergrad.data.tables import Split


class Tasks(NamedTuple):
    """B tasks of the same size, stacked along the first axis.

    Attributes:
        support: what a model is adapted to, X of shape (B, k, …) and y of shape (B, k).
        query: what judges the adapted model, X of shape (B, q, …) and y of shape (B, q).
    """

    support: Split
    query: Split


class TaskFamily(ABC):
    """Where tasks come from: a distribution over small data sets, some of which are held out."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator, *, held_out: bool = False) -> Tasks:
        """Independent tasks; on the CPU, real numbers in float64 or as the data has them.

        Args:
            count: B ≥ 1.
            generator: all that the draw depends on.
            held_out: draw tasks to judge what was learned on the others, none of which is among them.
        """
