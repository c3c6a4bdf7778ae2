"""What several processes cannot share."""

from collections.abc import Callable
from typing import Any

import torch
from norm_cases import normalized, returning, returning_examples
from problem_cases import N, classes, network, posteriors, ridge, splits, supervised
from stream_cases import InOrder, streamed
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.problem.precision import InPrecision


class Centred(nn.Module):
    """Outputs minus their mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.body(x)
        return z - z.mean(0)


def pairs(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (z[:, None] - z[None]).square().mean() + cross_entropy(z, y)


def later() -> None:
    """Targets that are ignored after the first ones, of streamed examples."""
    data = returning_examples(30)
    data["labels"][-20:] = -100
    problem = hg.DataParallel(returning(train=data, batch_size=10, stream=True))
    for step in range(3):
        problem.inner_batch(step)


def synchronised() -> hg.Supervised:
    """A model whose layer would be refused on a CPU if it was called."""
    problem = normalized(network(3, inside=nn.BatchNorm1d(5)))
    problem.model.module[1] = nn.SyncBatchNorm(5, track_running_stats=False)  # pyright: ignore[reportIndexIssue]
    return problem


REFUSED: dict[str, Callable[[], Any]] = {
    "pairs": lambda: supervised(pairs, classes(N)),
    "centred": lambda: supervised(cross_entropy, classes(N), model=Centred()),
    "returned, ignored": lambda: returning(ignored=3),
    "normalised, dev in batches": lambda: normalized(dev_batch_size=3),
    "distilled, normalised": lambda: hg.Distillation(splits(), model=network(3, inside=nn.BatchNorm1d(5))),
    "distilled, centred": lambda: hg.Distillation(splits(), model=Centred()),
    "posteriors, normalised": lambda: posteriors(nn.BatchNorm1d(5)),
    "in order": lambda: streamed(dev=InOrder()),
    "root": lambda: hg.MeanField(splits()),
    "quadratic": lambda: hg.Quadratic(),
    "spread": lambda: hg.DataParallel(ridge()),
    "folds of spread": lambda: hg.k_fold(hg.DataParallel(ridge()), 3),
    "synchronised": synchronised,
    "penalised": lambda: hg.Lasso(hg.Splits(*([hg.Split(torch.eye(4), torch.arange(4.0))] * 3))),
}


ACTIONS: dict[str, Callable[[], Any]] = {
    **{name: lambda make=make: hg.DataParallel(make()) for name, make in REFUSED.items()},
    "precision outside": lambda: InPrecision(hg.DataParallel(ridge()), "bf16-true"),
    "returned, ignored later": later,
}


def refusal(action: Callable[[], Any]) -> str:
    """The message of an error."""
    try:
        action()
    except (ValueError, NotImplementedError) as error:
        return str(error)
    return "served"
