"""Data sets that make their examples on demand, and problems on them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, IterableDataset

import hypergrad as hg

CLASSES = 3


class Made(Dataset):
    """Example i is a function of (seed, i), with noise from torch's random state on top.

    `reads` holds the positions that this process has read.
    """

    def __init__(self, seed: int, n: int = 23, noise: float = 0.0) -> None:
        self.seed, self.n, self.noise, self.reads = seed, n, noise, list[int]()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        self.reads.append(index)
        x = torch.randn(5, generator=torch.Generator().manual_seed(1000 * self.seed + index))
        return (x + self.noise * torch.randn(5) if self.noise else x), index % CLASSES


class Named(Made):
    """The same as dicts."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return {"input": x, "labels": y}


class InOrder(IterableDataset):
    """The examples of a data set, in order or in an order drawn for each pass."""

    def __init__(self, data: Dataset, *, shuffled: bool = False) -> None:
        self.data, self.shuffled = data, shuffled

    def __iter__(self) -> Any:
        size = len(self.data)  # pyright: ignore[reportArgumentType]
        order = torch.randperm(size).tolist() if self.shuffled else range(size)
        return (self.data[i] for i in order)


def network(norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(4) if norm else nn.Tanh()
    return nn.Sequential(nn.Linear(5, 4), middle, nn.Linear(4, CLASSES)).double()


def problem_on(train: Any, *, norm: bool = False, **settings: Any) -> Any:
    usual: dict[str, Any] = {
        "model": network(norm),
        "loss": cross_entropy,
        "dev": Made(2, 9),
        "test": Made(3, 7),
        "hyperparameters": {"l2": hg.L2(init=0.1, per="tensor")},
        "batch_size": 6,
    }
    return hg.Supervised(train=train, **usual | settings)


def outcome(problem: Any, *, tape: Any = None, steps: int = 9) -> dict[str, Tensor]:
    """A hypergradient and the metrics after a short training."""
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=steps, tape=tape or hg.Store())
    at = problem.init_hparams()
    found = estimator.estimate(problem, at, problem.init_params())
    metrics = {name: torch.as_tensor(x) for name, x in problem.metrics(found.params, at).items()}
    return {**found.grad, **found.params, "loss": torch.tensor(found.outer_loss), **metrics}


def require_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], x) for name, x in wanted.items()), (found, wanted)
