"""A small neural network on enlarged digits, trained short of its optimum."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot, softmax

import hypergrad as hg
from benchmarks.problem.base import PenalisedClassifier
from hypergrad.core.autodiff import unflatten

_HIDDEN = 256


class TanhMLP(PenalisedClassifier):
    """The logits are tanh(X W₁ + b₁) W₂ + b₂ with 784-256-10 units; 203,530 penalties, one per weight and bias.

    5000 train images are drawn from 1300 of scikit-learn's digits and 1000 dev images from the other 497, each enlarged
    to 28 × 28 pixels, turned, zoomed and shifted at random. Where training stops, the eigenvalues of the Hessian go
    from −1.4e-3 (150 steps of Lanczos) to 7.4, so that the damping, which the exact hypergradient includes, makes it
    positive definite.
    """

    l2: ClassVar[float] = 1e-3
    damping: ClassVar[float] = 1e-2
    inner_tol: ClassVar[float] = 3e-4

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(labels), generator=generator)
        small = torch.tensor(images / 16)[order].to(torch.get_default_dtype()).view(-1, 1, 8, 8)
        y = torch.tensor(labels)[order]
        train, dev = _draw(small[:1300], y[:1300], 5000, generator), _draw(small[1300:], y[1300:], 1000, generator)
        super().__init__(*train, *dev)

    def init_params(self) -> hg.Tensors:
        generator = torch.Generator().manual_seed(1)
        inputs = self.X.shape[1]
        return {
            "W1": torch.randn(inputs, _HIDDEN, generator=generator) / inputs**0.5,
            "b1": torch.zeros(_HIDDEN),
            "W2": torch.randn(_HIDDEN, 10, generator=generator) / _HIDDEN**0.5,
            "b2": torch.zeros(10),
        }

    def logits(self, params: hg.Tensors, X: Tensor) -> Tensor:
        return torch.tanh(X @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]

    def hessian_product(self, params: hg.Tensors, l2: Tensor) -> Callable[[Tensor], Tensor]:
        """The derivative of back-propagation along v, marked by a dash; D and E are the errors behind each layer.

        Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation (1994).
        """
        X, n = self.X, len(self.X)
        W1, b1, W2, b2 = params.values()
        H = torch.tanh(X @ W1 + b1)
        slope = 1 - H * H
        P = softmax(H @ W2 + b2, dim=1)
        D = (P - one_hot(self.y, P.shape[1])) / n
        back = D @ W2.T

        def product(v: Tensor) -> Tensor:
            V1, c1, V2, c2 = unflatten(v, params).values()
            dH = slope * (X @ V1 + c1)
            dZ = dH @ W2 + H @ V2 + c2
            dD = P * (dZ - (P * dZ).sum(1, keepdim=True)) / n
            dE = slope * (dD @ W2.T + D @ V2.T) - 2 * H * dH * back
            pieces = (X.T @ dE, dE.sum(0), dH.T @ D + H.T @ dD, dD.sum(0))
            return torch.cat([piece.reshape(-1) for piece in pieces]) + l2 * v

        return product


def _draw(images: Tensor, labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """`count` images of 784 pixels, each one of `images` turned by ±15°, zoomed by ±15 % and shifted by ±10 %."""

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator) - 1

    chosen = torch.randint(len(images), (count,), generator=generator)
    angle, zoom, shift = uniform(count) * math.pi / 12, 1 + 0.15 * uniform(count), 0.2 * uniform(count, 2, 1)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = affine_grid(torch.cat([turn, shift], 2), [count, 1, 28, 28], align_corners=False)
    return grid_sample(images[chosen], grid, align_corners=False).view(count, 784), labels[chosen]
