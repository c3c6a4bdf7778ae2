"""Mistakes of users: each is answered before training starts, with the part, what was expected and what was met."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import hypergrad as hg

N, P, K = 12, 4, 3


@dataclass(frozen=True, kw_only=True)
class Watched(hg.GradientDescent):
    """Gradient descent that says when it takes a step."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("training has started")


def data(n: int = N, p: int = P, *, classes: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K if classes else torch.randn(n, 1, generator=generator)
    return torch.randn(n, p, generator=generator), y


def tuned(**changes: Any) -> None:
    """One estimate of a linear regression on tables, but for some changes."""
    settings: dict[str, Any] = {
        "model": nn.Linear(P, 1),
        "loss": F.mse_loss,
        "train": data(),
        "dev": data(seed=1),
        "hyperparameters": {"l2": hg.L2(init=0.1)},
    }
    problem = hg.Supervised(**settings | changes)
    hg.Unrolled(solver=Watched(lr=0.1), inner_steps=2).estimate(problem, problem.init_hparams(), problem.init_params())


def classified(**changes: Any) -> None:
    """The same for three classes."""
    tuned(
        **{
            "model": nn.Linear(P, K),
            "loss": F.cross_entropy,
            "train": data(classes=True),
            "dev": data(classes=True, seed=1),
        }
        | changes
    )


class Scalars(IterableDataset):
    """Examples whose labels are plain numbers in a stream of single examples, not batches."""

    def __iter__(self) -> Iterator[tuple[Tensor, float]]:
        return iter(zip(data()[0], [0.0] * N, strict=True))


class Broken(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 7:
            raise OSError("file 7 is missing")
        return torch.zeros(P), torch.zeros(1)


class Ragged(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(P + index), torch.zeros(1)


class Forgetful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(P, 1)

    def forward(self, x: Tensor) -> None:
        self.linear(x)


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(P, 1)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not written yet")


def nan(part: tuple[Tensor, Tensor], of: int) -> tuple[Tensor, Tensor]:
    part[of].view(-1)[3] = torch.nan
    return part


def frozen() -> nn.Module:
    return nn.Linear(P, 1).requires_grad_(False)


def far() -> nn.Module:
    module = nn.Linear(P, 1)
    with torch.no_grad():
        module.weight.fill_(torch.nan)
    return module


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    # data
    "too wide": (lambda: tuned(train=data(p=P + 1)), rf"train.*{P + 1}"),
    "dev too wide": (lambda: tuned(dev=data(p=P + 1)), rf"dev.*{P + 1}"),
    "test too wide": (lambda: tuned(test=data(p=P + 1)), rf"test.*{P + 1}"),
    "fewer targets": (lambda: tuned(train=(data()[0], data()[1][:-1])), f"train.*{N}.*{N - 1}"),
    "no examples": (lambda: tuned(train=data(n=0)), "train.* 0 "),
    "empty dev": (lambda: tuned(dev=data(n=0)), "dev.* 0 "),
    "one example": (lambda: tuned(train=(data()[0][0], data()[1][0])), "train"),
    "NaN in X": (lambda: tuned(train=nan(data(), 0)), "X of the train part holds 1 of"),
    "NaN in y of dev": (lambda: tuned(dev=nan(data(), 1)), "y of the dev part holds 1 of"),
    "three tensors": (lambda: tuned(train=[*data(), data()[0]]), "train"),
    "only X": (lambda: tuned(train=data()[0]), "train"),
    "a path": (lambda: tuned(train="train.csv"), "train.*str"),
    "None": (lambda: tuned(dev=None), "dev.*NoneType"),
    "a number": (lambda: tuned(dev=3), "dev.*int"),
    "strings": (lambda: tuned(train=(np.array([["a"] * P] * N), data()[1])), "X of the train part"),
    "objects": (lambda: tuned(train=(np.array([[object()] * P] * N), data()[1])), "X of the train part"),
    "X and y swapped": (lambda: tuned(train=data()[::-1]), "train"),
    "a stream of examples": (lambda: tuned(train=Scalars()), "train.*batch"),
    "an example that fails": (lambda: tuned(train=Broken()), "example 7 of 12 of the train part"),
    "ragged examples": (lambda: tuned(train=Ragged()), "train part"),
    "a data set without targets": (
        lambda: tuned(train=TensorDataset(data()[0])),
        r"train part must give pairs \(x, y\)",
    ),
    "an empty loader": (lambda: tuned(train=iter([])), "train part holds 0 examples"),
    "images for a table": (lambda: tuned(train=(torch.randn(N, 2, P, P), torch.randn(N, 1))), "train"),
    # targets
    "targets of another shape": (lambda: tuned(train=(data()[0], torch.randn(N))), rf"train.*\({N},\)|\({N},\).*train"),
    "two columns of targets": (lambda: tuned(train=(data()[0], torch.randn(N, 2))), rf"\({N}, 2\)"),
    "class too large": (lambda: classified(train=(data()[0], torch.arange(N))), "train"),
    "class below zero": (lambda: classified(train=(data()[0], -torch.ones(N, dtype=torch.long))), "train"),
    "class too large in dev": (lambda: classified(dev=(data()[0], torch.full((N,), K))), "dev"),
    "float labels": (lambda: classified(train=(data()[0], torch.arange(N).double() % K)), "train"),
    "one-hot integers": (lambda: classified(train=(data()[0], F.one_hot(torch.arange(N) % K))), "train"),
    "logits for a binary loss": (
        lambda: tuned(
            loss=F.binary_cross_entropy, train=(data()[0], torch.ones(N, 1)), dev=(data()[0], torch.ones(N, 1))
        ),
        "between 0 and 1|0 to 1|logits",
    ),
    "labels outside 0 and 1": (
        lambda: tuned(loss=nn.BCEWithLogitsLoss(), train=(data()[0], 2 * torch.ones(N, 1))),
        "train",
    ),
    # model
    "model and loss swapped": (lambda: tuned(model=F.mse_loss, loss=nn.Linear(P, 1)), "model"),
    "a class instead of a module": (lambda: tuned(model=nn.Linear), "model"),
    "a function instead of a module": (lambda: tuned(model=lambda x: x), "model"),
    "nothing to train": (lambda: tuned(model=frozen()), "nothing to train"),
    "no parameters": (lambda: tuned(model=nn.Tanh()), "nothing to train"),
    "returns nothing": (lambda: tuned(model=Forgetful()), "NoneType"),
    "raises": (lambda: tuned(model=Raising()), "not written yet"),
    "weights that are NaN": (lambda: tuned(model=far()), "NaN"),
    "lazy": (lambda: tuned(model=nn.LazyLinear(1)), "[Ll]azy"),
    "half precision": (lambda: tuned(model=nn.Linear(P, 1).half()), "float16"),
    "complex": (lambda: tuned(model=nn.Linear(P, 1).to(torch.complex64)), "complex"),
    "on meta": (lambda: tuned(model=nn.Linear(P, 1, device="meta")), "meta"),
    "DataParallel": (lambda: tuned(model=nn.DataParallel(nn.Linear(P, 1))), "DataParallel"),
    "random outside torch": (
        lambda: tuned(model=Noisy()),
        "two calls differ",
    ),
    # loss
    "a name": (lambda: tuned(loss="mse"), "loss"),
    "a class of loss": (lambda: tuned(loss=nn.MSELoss), "loss.*MSELoss"),
    "returns a number": (lambda: tuned(loss=lambda z, y: 1.0), "loss must return a tensor"),
    "one argument": (lambda: tuned(loss=lambda z: z.mean()), "loss"),
    "detached": (lambda: tuned(loss=lambda z, y: (z - y).square().mean().detach()), "loss"),
    "accuracy": (lambda: classified(loss=lambda z, y: (z.argmax(1) != y).double().mean()), "loss"),
    "NaN loss": (lambda: tuned(loss=lambda z, y: (z * torch.inf - z * torch.inf).mean()), "NaN|nan"),
    "three inputs": (lambda: tuned(loss=nn.TripletMarginLoss()), "loss"),
    # hyperparameters
    "no hyperparameters": (lambda: tuned(hyperparameters={}), "hyperparameter"),
    "a number for an effect": (lambda: tuned(hyperparameters={"l2": 0.1}), r"hyperparameters\['l2'\].*float"),
    "a class for an effect": (lambda: tuned(hyperparameters={"l2": hg.L2}), r"hyperparameters\['l2'\]"),
    "a list": (lambda: tuned(hyperparameters=[hg.L2(init=0.1)]), "hyperparameters"),
    "a negative penalty": (lambda: tuned(hyperparameters={"l2": hg.L2(init=-1.0)}), "-1"),
    "a zero penalty": (lambda: tuned(hyperparameters={"l2": hg.L2(init=0.0)}), "boundary"),
    "smoothing of zero": (lambda: classified(hyperparameters={"s": hg.LabelSmoothing(init=0.0)}), "0"),
    "smoothing of two": (lambda: classified(hyperparameters={"s": hg.LabelSmoothing(init=2.0)}), "2"),
    "no such parameter": (lambda: tuned(hyperparameters={"l2": hg.L2(init=0.1, on="conv*")}), "matches none"),
    "no such part": (lambda: tuned(hyperparameters={"l2": hg.L2(init=0.1, per="layer")}), "layer"),
    "weights of classes for regression": (lambda: tuned(hyperparameters={"c": hg.ClassWeights()}), "ClassWeights"),
    "maps of images for a table": (lambda: tuned(hyperparameters={"a": hg.RandomAffine()}), "RandomAffine"),
    "unused": (lambda: tuned(hyperparameters={"rate": hg.Hyperparameter(0.1)}), "rate"),
    # settings
    "batch of zero": (lambda: tuned(batch_size=0), "batch_size.*0"),
    "batch of half": (lambda: tuned(batch_size=0.5), "batch_size.*0.5"),
    "batch as text": (lambda: tuned(batch_size="8"), "batch_size.*'8'"),
    "no rate of that name": (lambda: unknown_rate(), "rate"),
    "steps below zero": (lambda: hg.Unrolled(inner_steps=-1), "inner_steps.*-1"),
    "an optimizer, not a maker": (lambda: made(torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.1)), "optimizer"),
    "an optimizer of nothing": (lambda: made(lambda u: None), "optimizer"),
    "patience as text": (lambda: made(torch.optim.Adam, patience="3"), "patience"),
}


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(P, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + np.random.rand()


def unknown_rate() -> None:
    problem = hg.Supervised(
        model=nn.Linear(P, 1), loss=F.mse_loss, train=data(), dev=data(), hyperparameters={"l2": hg.L2(init=0.1)}
    )
    hg.Unrolled(solver=Watched(lr="rate"), inner_steps=2).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )


def made(optimizer: Any, **settings: Any) -> None:
    problem = hg.Supervised(
        model=nn.Linear(P, 1), loss=F.mse_loss, train=data(), dev=data(), hyperparameters={"l2": hg.L2(init=0.1)}
    )
    hg.fit(problem, hg.Unrolled(solver=Watched(lr=0.1), inner_steps=2), optimizer, steps=1, progress=False, **settings)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_before_training_starts(name: str) -> None:
    make, words = MISTAKES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError, hg.HypergradError, OSError, RuntimeError)) as caught:
            make()
    message = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    import re

    assert re.search(words, message, re.DOTALL), message


def test_there_are_at_least_sixty() -> None:
    assert len(MISTAKES) >= 60
