"""Problems on the CPU and on another device, and the hypergradient on both."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tables import synthetic
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import flatten


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def classes(seed: int, n: int = 18, shape: tuple[int, ...] = (4,), k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return drawn(seed, n, *shape), torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*(layers or (nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))).double()


def supervised(*layers: nn.Module, shape: tuple[int, ...] = (4,), **settings: Any) -> hg.Supervised:
    usual: dict[str, Any] = {
        "model": network(*layers),
        "loss": cross_entropy,
        "hyperparameters": {"l2": hg.L2(init=0.05)},
        **{part: classes(seed, shape=shape) for seed, part in enumerate(("train", "dev", "test"))},
    }
    return hg.Supervised(**usual | settings)


def convolutions(**settings: Any) -> hg.Supervised:
    layers = (nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    return supervised(*layers, shape=(1, 4, 4), **settings)


def with_averages(**settings: Any) -> hg.Supervised:
    return supervised(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3), **settings)


def with_dropout(**settings: Any) -> hg.Supervised:
    return supervised(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.4), nn.Linear(5, 3), **settings)


def waves(**settings: Any) -> hg.MetaLearning:
    model = network(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))
    return hg.MetaLearning(model=model, loss=mse_loss, tasks=hg.Sinusoids(shots=5), tasks_per_step=3, **settings)


def posteriors() -> hg.SemiAmortized:
    parts = (hg.Split(drawn(seed, 12, 9).sigmoid(), torch.zeros(12)) for seed in range(3))
    encoder, decoder = network(nn.Linear(9, 4)), network(nn.Linear(2, 9))
    return hg.SemiAmortized(hg.Splits(*parts), encoder=encoder, decoder=decoder, latent=2, batch_size=6, num_test=3)


def splits(seed: int = 0) -> hg.Splits:
    return hg.Splits(*(hg.Split(*classes(seed + i)) for i in range(3)))


PROBLEMS: dict[str, Callable[[], hg.InnerProblem]] = {
    "ridge": lambda: hg.Ridge(synthetic(0), l2=0.3),
    "quadratic": lambda: hg.Quadratic(size=7),
    "batches": lambda: supervised(batch_size=7, hyperparameters={"w": hg.ExampleWeights(), "l2": hg.L2(init=0.05)}),
    "convolutions": convolutions,
    "a recurrence": lambda: supervised(_Last(), nn.Linear(3, 3), shape=(4, 2)),
    "attention": lambda: supervised(
        nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), nn.Flatten(), nn.Linear(12, 3), shape=(3, 4)
    ),
    "folds": lambda: hg.k_fold(hg.Ridge(synthetic(0), l2=0.3), 3),
    "folds of a network": lambda: hg.k_fold(supervised(test=None), 3),
    "cleaning": lambda: hg.HyperCleaning(splits(), l2=1e-2),
    "distillation": lambda: hg.Distillation(splits(), per_class=2),
    "tied": lambda: hg.Tied(hg.Ridge(synthetic(0), l2=0.3, per_feature=True), name="l2", groups=2),
    "tasks": waves,
    "learning to learn": lambda: hg.LearningToLearn(
        hg.Ridge(synthetic(0), l2=0.3), {"lr": hg.Hyperparameter(0.05), "beta": hg.Hyperparameter(0.6)}
    ),
    "posteriors": posteriors,
    "mean field": lambda: hg.MeanField(hg.Splits(*(hg.Split(x.X.sigmoid(), x.y) for x in splits())), flip=0.3),
}
SPARSE: dict[str, Callable[[], hg.L1Problem]] = {
    "lasso": lambda: hg.Lasso(synthetic(0)),
    "elastic net": lambda: hg.ElasticNet(synthetic(0), per_feature=True),
    "logistic": lambda: hg.SparseLogistic(two_classes()),
}
EFFECTS: dict[str, Callable[[], Mapping[str, hg.Effect]]] = {
    "l2 per tensor": lambda: {"l2": hg.L2(init=0.05, per="tensor")},
    "l2 per weight": lambda: {"l2": hg.L2(init=0.05, per="weight")},
    "l2 per feature": lambda: {"l2": hg.L2(init=0.05, per="feature", on="0.weight")},
    "l1": lambda: {"l1": hg.L1(init=0.02, smoothing=0.1)},
    "example weights": lambda: {"weights": hg.ExampleWeights(init=0.7)},
    "class weights": lambda: {"weights": hg.ClassWeights(init=0.7)},
    "label smoothing": lambda: {"smoothing": hg.LabelSmoothing()},
    "input scale": lambda: {"scale": hg.InputScale(init=1.3)},
    "initial scale": lambda: {"init": hg.InitScale(init=1.2, per="tensor", on="*weight")},
}
MOVES: dict[str, Callable[[], hg.Effect]] = {
    "one": lambda: hg.RandomAffine(init=0.2),
    "six": lambda: hg.RandomAffine(init=0.2, per_entry=True),
    "network": lambda: hg.AffineNetwork(network=network(nn.Linear(16, 12))),
}


class _Last(nn.Module):
    """The last state of a recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.GRU(2, 3, batch_first=True)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.recurrence(X)[0][:, -1]


def two_classes() -> hg.Splits:
    return hg.Splits(*(hg.Split(X, (y > y.median()).double()) for X, y in synthetic(0)))


def agree(
    problem: hg.InnerProblem, estimator: hg.HypergradEstimator, device: torch.device, rtol: float = 1e-9
) -> hg.Hypergradient:
    """The hypergradient on a device, after it was compared with that on the CPU, and the metrics; the problem moves."""
    hparams = problem.init_hparams()
    right = estimator.estimate(problem, hparams, problem.init_params())
    metrics = {name: float(value) for name, value in problem.metrics(right.params, hparams).items()}
    problem.to(device)
    start, hparams = problem.init_params(), problem.init_hparams()
    found = estimator.estimate(problem, hparams, start)
    for tensors in (start, hparams, found.grad, found.params):
        assert {x.device.type for x in tensors.values()} == {device.type}
    assert flatten(found.params).cpu() == pytest.approx(flatten(right.params).numpy(), rel=rtol, abs=1e-12)
    size = flatten(right.grad).norm()
    assert (flatten(found.grad).cpu() - flatten(right.grad)).norm() <= rtol * size, estimator
    for name, value in problem.metrics(found.params, hparams).items():
        assert float(value) == pytest.approx(metrics[name], rel=1e-8), name
    return found
