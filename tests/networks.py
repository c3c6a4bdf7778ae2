"""A small network with an indefinite Hessian until it is trained."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import hypergrad as hg


class Network(hg.InnerProblem):
    """A 6-8-3 tanh network on 40 examples, with one L2 penalty per tensor; float64."""

    X: Tensor
    y: Tensor

    def __init__(self, seed: int = 0, wide: int = 8) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.register_buffer("X", torch.randn(80, 6, generator=g, dtype=torch.float64))
        self.register_buffer("y", torch.randint(0, 3, (80,), generator=g))
        self.first = {
            "W1": torch.randn(wide, 6, generator=g, dtype=torch.float64),
            "b1": torch.zeros(wide, dtype=torch.float64),
            "W2": torch.randn(3, wide, generator=g, dtype=torch.float64),
        }

    def init_params(self) -> hg.Tensors:
        return self.first

    def hyperparameters(self) -> dict[str, hg.Hyperparameter]:
        return {"l2": hg.Hyperparameter(1e-3, shape=(3,), constraint=hg.positive)}

    def logits(self, p: hg.Tensors, X: Any) -> Tensor:
        return torch.tanh(X @ p["W1"].T + p["b1"]) @ p["W2"].T

    def outputs(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        return self.logits(params, self.X[:40])

    def loss_of_outputs(self, outputs: Tensor, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        penalty = sum(l2 * (p**2).sum() for l2, p in zip(hparams["l2"], params.values(), strict=True))
        return cross_entropy(outputs, self.y[:40]) + penalty

    def inner_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def outer_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        return cross_entropy(self.logits(params, self.X[40:]), self.y[40:])
