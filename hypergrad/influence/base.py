"""The promise of an influence method: the change of dev losses without each train example.

`hypergrad.influence` holds the methods, one per file, and the command `python -m hypergrad.influence`. It may import
everything up to `sensitivity`; the command in `__main__.py` also imports `cli`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.problem.supervised.supervised import Supervised

Scores = Callable[[Tensor | None], Tensor]
"""Rows of dev, shape (m,), ↦ the change of each of their losses without each of n train examples, shape (m, n); None ↦
the change of the mean dev loss, shape (n,). To first order in the weight of the example; harmful examples have negative
changes."""


class InfluenceMethod(ABC):
    """How the influence of train examples on dev losses is computed."""

    trains: ClassVar[bool] = False
    """Whether it trains by itself, on the mini-batches of the problem, and not from given parameters."""
    dev_block: int
    """Rows of dev for which it is asked at once, ≥ 1."""

    @abstractmethod
    def prepare(self, problem: Supervised, params: Tensors, hparams: Tensors) -> Scores:
        """What all dev examples share, such as factors of the curvature, and the scores as a function of rows of dev.

        Args:
            problem: not changed.
            params: the trained parameters; a method that trains by itself starts from `problem.init_params()` instead.
            hparams: λ.

        Returns:
            The scores: m rows of dev, shape (m,), ↦ shape (m, n); None ↦ shape (n,). Their bits depend on the rows
            only, so that a killed run can go on.
        """
