"""The promise of a family of tasks: small data sets, each to be learned from few examples."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch

from hypergrad.data.tables import Split


class Tasks(NamedTuple):
    """B tasks of the same size, stacked along the first axis.

    Attributes:
        support: the examples to adapt a model to, X of shape (B, k, …) and y of shape (B, k).
        query: the examples to judge the adapted model by, X of shape (B, q, …) and y of shape (B, q).
    """

    support: Split
    query: Split


class TaskFamily(ABC):
    """A distribution over small data sets, some of which are held out."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator, *, held_out: bool = False) -> Tasks:
        """Independent tasks, on the CPU; real numbers in float64 or in the dtype of the data.

        Args:
            count: B ≥ 1.
            generator: the draw depends on nothing else.
            held_out: draw tasks to judge what was learned on the others; the two kinds share no task.
        """
