"""Problems that are not the same on all ranks, which an estimator alone would not notice."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from problem_cases import N, classes, cleaning, supervised
from stream_cases import InOrder, Read, streamed
from torch.nn.functional import cross_entropy

import hypergrad as hg


def drawn() -> hg.InnerProblem:
    torch.manual_seed(dist.get_rank())
    return hg.Supervised(
        model=torch.nn.Linear(4, 3),
        loss=cross_entropy,
        train=(torch.ones(4, 4), torch.zeros(4).long()),
        dev=(torch.zeros(4, 4), torch.zeros(4).long()),
        hyperparameters={"l2": hg.L2(init=0.1)},
    )


def in_memory() -> hg.Supervised:
    return supervised(cross_entropy, classes(N))


def shifted() -> hg.InnerProblem:
    problem = in_memory()
    problem.X_dev = problem.X_dev + 1e-9 * dist.get_rank()  # pyright: ignore[reportAttributeAccessIssue]
    return problem


DIFFERENT: dict[str, Callable[[], hg.InnerProblem]] = {
    "data": shifted,
    "parameters": drawn,
    "hyperparameters": lambda: streamed(effects={"all": hg.L2(init=0.1 + dist.get_rank())}),
    "seed": lambda: streamed(seed=dist.get_rank()),
    "batch size": lambda: streamed(batch_size=4 + dist.get_rank()),
    "length": lambda: streamed(Longer(40, more=dist.get_rank())),
    "first examples": lambda: streamed(Shifted(1e-9 * dist.get_rank())),
    "kinds": lambda: streamed() if dist.get_rank() else in_memory(),
}


class Longer(Read):
    """More examples at the end, of which the first ones do not tell."""

    def __init__(self, n: int, more: int) -> None:
        super().__init__(n)
        self.more = more

    def __len__(self) -> int:
        return self.n + self.more


class Shifted(InOrder):
    def __init__(self, by: float) -> None:
        self.by = by

    def __iter__(self) -> Any:
        return ((x + self.by, y) for x, y in super().__iter__())


def said(make: Callable[[], hg.InnerProblem], share: Callable[[Any], Any] = hg.DataParallel) -> str:
    """The error of sharing a problem."""
    problem = make()
    try:
        share(problem)
    except hg.RankError as error:
        return str(error)
    return ""


def same() -> list[str]:
    """Of problems that are the same."""
    return [said(make) for make in (in_memory, streamed, lambda: streamed(InOrder()), cleaning)]


def again() -> int:
    """How often a cross-validation of a shared problem, and its final training, compare."""
    from unittest import mock

    from hypergrad.problem.distributed import data_parallel

    problem = hg.DataParallel(in_memory())
    with mock.patch.object(data_parallel, "require_same_start") as compared:
        hg.k_fold(problem, folds=2)
        problem.joined(problem.init_hparams())
    return compared.call_count


def cases() -> dict[str, Callable[[], Any]]:
    return {
        **{name: partial(said, make) for name, make in DIFFERENT.items()},
        "sharded parameters": partial(said, drawn, hg.FullySharded),
        "same": same,
        "again": again,
    }
