"""Data sets that several processes read, each its own rows, and random draws that differ between processes."""

from collections.abc import Callable
from typing import Any

import torch
from problem_cases import N, compared, draw, error, found, network, supervised, unrolled
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, IterableDataset

import hypergrad as hg
from hypergrad.problem.wrapper import Wrapper


class Read(Dataset):
    """Examples that are made when they are read; `reads` holds the positions that this process has read."""

    def __init__(self, n: int = N, *, noise: float = 0.0, ignored: int = 0) -> None:
        self.n, self.noise, self.ignored, self.reads = n, noise, ignored, list[int]()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        self.reads.append(index)
        x = draw(4, seed=100 * self.n + index)
        x = x + self.noise * torch.randn(4, dtype=torch.float64) if self.noise else x
        return x, -100 if index < self.ignored else index % 3


class InOrder(IterableDataset):
    def __iter__(self) -> Any:
        return (Read()[i] for i in range(N))


def streamed(train: Any = None, dev: Any = None, **settings: Any) -> hg.Supervised:
    effects = settings.pop("effects", {})
    usual: dict[str, Any] = {"stream": True, "batch_size": 5, "model": network(3)}
    return hg.Supervised(
        loss=cross_entropy,
        train=Read() if train is None else train,
        dev=Read(7) if dev is None else dev,
        hyperparameters={"l2": hg.L2(init=0.3, per="tensor"), **effects},
        **usual | settings,
    )


def rows_read() -> dict[str, Any]:
    """Which rows a process reads for some training steps and dev losses."""
    train, dev = Read(40), Read(20)
    problem = hg.DataParallel(streamed(train, dev, batch_size=10, dev_batch_size=3))
    at_start = len(dev.reads)
    train.reads.clear()
    dev.reads.clear()
    for step in range(1, 4):  # the first epoch without its first step, which was read when the problem was made
        problem.inner_batch(step)
    w, hp = problem.init_params(), problem.init_hparams()
    for step in range(2):
        problem.outer_loss(w, hp, problem.outer_batch(step))
    return {"train": train.reads, "dev": dev.reads, "at start": at_start}


class InShares(Wrapper):
    """A problem on one process that sums over the parts of two."""

    def untied(self, hparams: Any) -> Any:
        return hparams

    def hyperparameters(self) -> Any:
        return self.problem.hyperparameters()

    def inner_parts(self, batch: Any) -> Any:
        parts = [self.problem.inner_share(batch, rank, 2) for rank in range(2)]
        return [part for part in parts if part[1] > 0]


def random(**settings: Any) -> hg.Supervised:
    """Dropout and augmentation; the inputs are images of 2 × 2 pixels."""
    moved = {"moved": hg.RandomAffine()}
    model = network(3, inside=nn.Dropout(0.5))
    return supervised(cross_entropy, torch.arange(N) % 3, moved, model=model, batch_size=5, **settings)


def by_draws(**settings: Any) -> list[float]:
    """Draws on two processes against the same parts on one, and one tape against another that computes again."""
    one, many = found(InShares(random()), unrolled()), found(hg.DataParallel(random(**settings)), unrolled())
    again = hg.Unrolled(solver=hg.Momentum(lr=0.05), inner_steps=3, tape=hg.Checkpoint(slots=2))
    return [error(one, many), error(found(hg.DataParallel(random(**settings)), again), many)]


def draws() -> list[float]:
    """Where dropout leaves out something in some steps, and the numbers of the draws."""
    problem = hg.DataParallel(random())
    batches = [problem.inner_batch(step).batch for step in range(4)]
    kept = [nn.Dropout(0.5)(torch.ones(6)).tolist() for b in batches if torch.manual_seed(b.draw)]
    return [b.draw for b in batches] + sum(kept, [])


each = {"each": hg.ExampleWeights()}
PARITY: dict[str, Callable[[], list[float]]] = {
    "streamed": lambda: compared(lambda: streamed(Read(ignored=3), Read(7, ignored=3), dev_batch_size=2, effects=each)),
    "a sample of streamed dev": lambda: compared(lambda: streamed(dev=Read(7, ignored=3), dev_sample=4), unrolled()),
    "streamed, an empty part": lambda: compared(lambda: streamed(batch_size=1, dev=Read(1)), unrolled()),
    "streamed by a worker": lambda: compared(lambda: streamed(num_workers=1), unrolled()),
    "streamed, random": lambda: compared(lambda: streamed(Read(noise=0.1)), unrolled()),
    "random in memory": lambda: compared(
        lambda: streamed(Read(noise=0.1, ignored=6), stream=False, effects=each, batch_size=None)
    ),
    "in order": lambda: compared(lambda: streamed(InOrder()), unrolled()),
    "folds of streams": lambda: compared(lambda: hg.k_fold(streamed(), 3), unrolled()),
    "streamed folds in parts": lambda: compared(
        lambda: hg.k_fold(streamed(), 3), unrolled(), wrap=lambda _: hg.k_fold(hg.DataParallel(streamed()), 3)
    ),
    "random draws": by_draws,
}
