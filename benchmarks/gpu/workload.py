"""The models of the sections, by PyTorch alone and as problems of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.networks import GPT, resnet18
from hypergrad.core.autodiff import Tensors, leaves


@dataclass(frozen=True)
class Workload:
    """A model and one batch, on a device; λ is an L2 penalty on a small part of the model, so that it costs little.

    Attributes:
        title: of the tables.
        make: builds the module, and (X, y) with the rows of train, and then those of dev; the same every time.
        num_train: rows of train.
        device: where everything is.
        penalised: the pattern of the names of the tensors that λ is for.
        lr: of the training steps.
        num_steps: T of an unrolled run.
        dtype: of the parameters.
        tolerance: largest relative distance between two results that counts as rounding.
        loss: of outputs and targets, a mean over the examples.
    """

    title: str
    make: Callable[[], tuple[nn.Module, Tensor, Tensor]]
    num_train: int
    device: torch.device
    penalised: str
    lr: float
    num_steps: int
    dtype: torch.dtype = torch.float32
    tolerance: float = 1e-3
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy

    @cached_property
    def parts(self) -> tuple[nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The module, train and dev, on the device."""
        torch.manual_seed(0)
        module, X, y = self.make()
        X, y, n = X.to(self.device, self.dtype if X.is_floating_point() else None), y.to(self.device), self.num_train
        return module.to(self.device, self.dtype), (X[:n], y[:n]), (X[n:], y[n:])

    def problem(self, **settings: Any) -> hg.Supervised:
        """The same as a problem of ours, with settings of `hg.Supervised`."""
        module, train, dev = self.parts
        penalty = {"l2": hg.L2(init=1e-4, on=self.penalised)}
        usual: dict[str, Any] = {"train": train, "dev": dev, "hyperparameters": penalty, "probe": False}
        return hg.Supervised(model=module, loss=self.loss, **usual | settings)

    def inner_loss(self, params: Tensors, l2: Tensor | float) -> Tensor:
        """g(w, λ) by PyTorch alone."""
        module, (X, y), _ = self.parts
        loss = self.loss(functional_call(module, params, (X,), tie_weights=True), y)
        for name in self.penalised_names:
            loss = loss + l2 * params[name].square().sum()
        return loss

    def outer_loss(self, params: Tensors) -> Tensor:
        """f(w) by PyTorch alone."""
        module, _, (X, y) = self.parts
        return self.loss(functional_call(module, params, (X,), tie_weights=True), y)

    @cached_property
    def penalised_names(self) -> list[str]:
        """The tensors that λ is for."""
        prefix = self.penalised.rstrip("*")
        return [name for name, _ in self.parts[0].named_parameters() if name.startswith(prefix)]

    def start(self) -> Tensors:
        """The initial parameters, as new leaves."""
        return leaves({name: p.detach().clone() for name, p in self.parts[0].named_parameters()})


def of_tokens(logits: Tensor, ids: Tensor) -> Tensor:
    """The mean loss of all tokens, from logits (n, vocabulary, t) that lie in memory as (n, t, vocabulary).

    With a row for each token. The kernels for other layouts took two thirds of the whole gradient on one H200.
    """
    return cross_entropy(logits.transpose(1, 2).flatten(0, 1), ids.flatten())


def workloads(device: torch.device, *, tiny: bool) -> dict[str, Workload]:
    """All of them; tiny ones run every line on a CPU."""

    def softmax() -> tuple[nn.Module, Tensor, Tensor]:
        images, labels = load_digits(return_X_y=True)
        return nn.Sequential(nn.Linear(64, 10)), torch.tensor(images[:1400] / 16), torch.tensor(labels[:1400])

    def perceptron() -> tuple[nn.Module, Tensor, Tensor]:
        n, wide = (40, 8) if tiny else (6000, 256)
        layers = nn.Linear(784, wide), nn.Tanh(), nn.Linear(wide, 10)
        return nn.Sequential(*layers), torch.randn(n, 784), torch.randint(10, (n,))

    def residual() -> tuple[nn.Module, Tensor, Tensor]:
        n = 4 if tiny else 256
        module = resnet18(4, 2) if tiny else resnet18()
        return module, torch.randn(n, 3, *([8, 8] if tiny else [32, 32])), torch.randint(10, (n,))

    def language() -> tuple[nn.Module, Tensor, Tensor]:
        n, t = (4, 6) if tiny else (16, 512)
        module = GPT(vocabulary=11, length=8, width=8, heads=2, layers=2) if tiny else GPT()
        ids = torch.randint(11 if tiny else 50257, (n, t + 1))
        return module, ids[:, :-1], ids[:, 1:]

    return {
        "softmax": Workload(
            "softmax regression on digits, float64",
            softmax,
            1000,
            device,
            "0.*",
            lr=0.05,
            num_steps=6 if tiny else 1000,
            dtype=torch.float64,
            tolerance=1e-8,
        ),
        "mlp": Workload(
            "784-256-10 MLP, n = 5000",
            perceptron,
            20 if tiny else 5000,
            device,
            "2.*",
            lr=0.05,
            num_steps=6 if tiny else 100,
        ),
        "resnet": Workload(
            "ResNet-18, group norm, batch 128",
            residual,
            2 if tiny else 128,
            device,
            "13.*",
            lr=0.01,
            num_steps=3 if tiny else 5,
        ),
        "gpt": Workload(
            "GPT of 124 M, 8 × 512 tokens",
            language,
            2 if tiny else 8,
            device,
            "norm.*",
            lr=0.01,
            num_steps=2,
            loss=of_tokens,
        ),
    }
