"""Softmax regression on scikit-learn's digits with one L2 penalty per weight."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

import hypergrad as hg


class SoftmaxRegression(hg.InnerProblem):
    """g = cross-entropy on train + Σ_ij λ_ij w_ij² / 2, f = cross-entropy on dev; W and λ have shape (64, 10).

    1000 train and 400 dev images of 64 pixels in [0, 1].
    """

    def __init__(self) -> None:
        super().__init__()
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        self.X = torch.tensor(images / 16)[order][:1400].to(torch.get_default_dtype())
        self.y = torch.tensor(labels)[order][:1400]
        self.X, self.X_dev = self.X[:1000], self.X[1000:]
        self.y, self.y_dev = self.y[:1000], self.y[1000:]

    def init_params(self) -> hg.Tensors:
        return {"W": torch.zeros(64, 10)}

    def hyperparameters(self) -> dict[str, hg.Hyperparameter]:
        return {"l2": hg.Hyperparameter(1e-2, shape=(64, 10), constraint=hg.positive)}

    def inner_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        W = params["W"]
        return cross_entropy(self.X @ W, self.y) + (hparams["l2"] * W * W).sum() / 2

    def outer_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        return cross_entropy(self.X_dev @ params["W"], self.y_dev)
