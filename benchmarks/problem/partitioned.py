"""An inner problem on mini-batches of fixed partitions of train and dev."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import hypergrad as hg
from hypergrad.core.seed import seed_of

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Partition:
    """Examples cut into batches once; every epoch uses each batch once, in an order of its own.

    Attributes:
        size: n ≥ 1.
        batch_size: ≥ 1; the last batch holds the rest. With n or more there is one batch.
        seed: of the orders of the epochs.
    """

    size: int
    batch_size: int
    seed: int

    @property
    def num_batches(self) -> int:
        """K = ⌈n / batch_size⌉."""
        return -(-self.size // self.batch_size)

    def index(self, step: int) -> int:
        """The number of the batch of a step."""
        K = self.num_batches
        return _order(K, self.seed, step // K)[step % K]

    def rows(self, step: int) -> slice:
        """The examples of the batch of a step."""
        begin = self.index(step) * self.batch_size
        return slice(begin, min(self.size, begin + self.batch_size))

    def place(self, step: int) -> hg.BatchPlace:
        """The place of the batch of a step."""
        rows, K = self.rows(step), self.num_batches
        return hg.BatchPlace(self.index(step), K, K * (rows.stop - rows.start) / self.size, is_fixed=True)


@lru_cache(maxsize=8)
def _order(num_batches: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed_of("batches", seed, epoch))
    return torch.randperm(num_batches, generator=generator).tolist()


class Partitioned(hg.InnerProblem):
    """An inner problem on batches of two arrays for each loss, whose first axis counts the examples.

    Args:
        train: X and Y, the arrays of the inner loss.
        dev: those of the outer loss.
        batch_size: of both; None for one batch of all.
        seed: of the orders of the batches.
    """

    X: Tensor
    Y: Tensor
    X_dev: Tensor
    Y_dev: Tensor

    def __init__(self, train: Batch, dev: Batch, batch_size: int | None, seed: int) -> None:
        super().__init__()
        for name, x in zip(("X", "Y", "X_dev", "Y_dev"), (*train, *dev), strict=True):
            self.register_buffer(name, x)
        n, m = len(train[0]), len(dev[0])
        self.inner_partition = Partition(n, batch_size or n, seed_of("train", seed))
        self.outer_partition = Partition(m, batch_size or m, seed_of("dev", seed))

    def inner_batch(self, step: int) -> Batch:
        rows = self.inner_partition.rows(step)
        return self.X[rows], self.Y[rows]

    def outer_batch(self, step: int) -> Batch:
        rows = self.outer_partition.rows(step)
        return self.X_dev[rows], self.Y_dev[rows]

    def inner_place(self, step: int) -> hg.BatchPlace:
        return self.inner_partition.place(step)

    def outer_place(self, step: int) -> hg.BatchPlace:
        return self.outer_partition.place(step)

    @property
    def samples_outer(self) -> bool:
        return self.outer_partition.num_batches > 1

    def whole_outer_batch(self) -> Batch:
        return self.X_dev, self.Y_dev

    def settings(self) -> dict[str, Any]:
        return {"batches": (self.inner_partition, self.outer_partition)}

    def value(self, hparams: hg.Tensors) -> tuple[float, Tensor]:
        """F(λ) at the exact solution of the inner problem, and dF/dλ flat, shape (p,)."""
        raise NotImplementedError

    def optimum(self) -> float:
        """F*, the least F."""
        raise NotImplementedError
