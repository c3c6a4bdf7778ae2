"""Classification among a few classes, from a few examples of each."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hypergrad.core.validation import require_int
from hypergrad.data.tables import Split, Splits
from hypergrad.task.base import TaskFamily, Tasks


@dataclass(frozen=True, kw_only=True, eq=False)
class FewShot(TaskFamily):
    """Tasks of N classes, numbered 0 to N − 1 in random order, with k examples of each to learn from.

    Some classes of the data are held out: held-out tasks are drawn from these, and tasks from the other classes. It
    does not matter to which part of the data an example belongs.

    Attributes:
        data: inputs of shape (n, …), and classes from 0.
        ways: N ≥ 2.
        shots: examples k of each class to adapt to, ≥ 1.
        queries: further examples of each class to judge by, ≥ 1.
        held_out: number of held-out classes, ≥ N; at least N others are left.
        seed: of the choice of the held-out classes.

    Raises:
        ValueError: if a number is out of range, or a class has too few examples.

    Source: Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, "Matching networks for one shot learning", NIPS
    (2016).
    """

    data: Splits = field(repr=False)
    ways: int = 3
    shots: int = 1
    queries: int = 15
    held_out: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"ways": 2, "shots": 1, "queries": 1, "held_out": self.ways}.items():
            require_int(self, name, least=least)
        sizes = [len(rows) for rows in self._examples]
        if len(sizes) - self.held_out < self.ways or min(sizes) < self.shots + self.queries:
            raise ValueError(
                f"FewShot needs at least ways + held_out = {self.ways + self.held_out} classes, and of each at least "
                f"shots + queries = {self.shots + self.queries} examples, but there are {len(sizes)} classes, the "
                f"smallest with {min(sizes)} examples."
            )

    def classes(self, *, held_out: bool) -> Tensor:
        """The classes that tasks, or held-out tasks, are drawn from, shape (K,)."""
        order = torch.randperm(len(self._examples), generator=torch.Generator().manual_seed(self.seed))
        return order[: self.held_out] if held_out else order[self.held_out :]

    def draw(self, count: int, generator: torch.Generator, *, held_out: bool = False) -> Tasks:
        classes = self.classes(held_out=held_out)
        rows = torch.stack([self._rows(classes, generator) for _ in range(count)])
        labels = torch.arange(self.ways)[:, None].expand(count, self.ways, 1)
        parts = rows.split([self.shots, self.queries], 2)
        return Tasks(*(Split(self._inputs[part.flatten(1)], labels.expand_as(part).flatten(1)) for part in parts))

    def _rows(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """The positions of the examples of a task, shape (N, k + q)."""
        chosen = classes[torch.randperm(len(classes), generator=generator)[: self.ways]]
        pools, size = [self._examples[c] for c in chosen.tolist()], self.shots + self.queries
        return torch.stack([pool[torch.randperm(len(pool), generator=generator)[:size]] for pool in pools])

    @cached_property
    def _inputs(self) -> Tensor:
        return torch.cat([part.X for part in self.data])

    @cached_property
    def _examples(self) -> list[Tensor]:
        """The positions of the examples of each class."""
        y = torch.cat([part.y for part in self.data])
        return [(y == c).nonzero()[:, 0] for c in range(1 + int(y.max()))]
