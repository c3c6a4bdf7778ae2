"""Softmax regression: on scikit-learn's digits, and on synthetic data with features of decaying scale."""

from collections.abc import Callable
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import softmax

import hypergrad as hg
from benchmarks.problem.base import PenalisedClassifier


class SoftmaxRegression(PenalisedClassifier):
    """The logits are X W, with W of shape (features, 10)."""

    def init_params(self) -> hg.Tensors:
        return {"W": self.X.new_zeros(self.X.shape[1], 10)}

    def logits(self, params: hg.Tensors, X: Tensor) -> Tensor:
        return X @ params["W"]

    def hessian_product(self, params: hg.Tensors, l2: Tensor) -> Callable[[Tensor], Tensor]:
        """V ↦ Xᵀ (P ∘ (X V − rowsum(P ∘ X V))) / n + λ ∘ V with P = softmax(X W)."""
        X, W, n = self.X, params["W"], len(self.X)
        P = softmax(X @ W, dim=1)

        def product(v: Tensor) -> Tensor:
            Z = X @ v.view_as(W)
            return (X.T @ (P * (Z - (P * Z).sum(1, keepdim=True))) / n).view(-1) + l2 * v

        return product


class Digits(SoftmaxRegression):
    """1000 train and 400 dev images of 64 pixels in [0, 1]; 640 penalties."""

    l2: ClassVar[float] = 1e-4

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:1400]
        X, y = torch.tensor(images / 16)[order].to(torch.get_default_dtype()), torch.tensor(labels)[order]
        super().__init__(X[:1000], y[:1000], X[1000:], y[1000:])


class DecayingScales(SoftmaxRegression):
    """20,000 train and 4000 dev rows; feature j = 1, …, 1000 is normal with scale 1/√j; 10,000 penalties.

    The labels are drawn from a softmax regression with standard normal weights.
    """

    l2: ClassVar[float] = 5e-4

    def __init__(self, num_train: int = 20_000, num_dev: int = 4000, num_features: int = 1000) -> None:
        generator = torch.Generator().manual_seed(0)
        scale = torch.arange(1, num_features + 1) ** -0.5
        X = torch.randn(num_train + num_dev, num_features, generator=generator) * scale
        logits = X @ torch.randn(num_features, 10, generator=generator)
        y = torch.multinomial(softmax(logits, dim=1), 1, generator=generator)[:, 0]
        super().__init__(X[:num_train], y[:num_train], X[num_train:], y[num_train:])
