"""The classifiers that the experiments train."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def softmax_regression(num_features: int, num_classes: int) -> nn.Module:
    """A linear layer with zero weights, so that all classes are equally likely.

    Args:
        num_features: p of the inputs, shape (n, p), ≥ 1.
        num_classes: K of the outputs, shape (n, K), ≥ 1.
    """
    model = nn.Linear(num_features, num_classes)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def perceptron(
    in_features: int, out_features: int, hidden: Sequence[int] = (50,), *, std: float | None = None, bias: bool = True
) -> nn.Module:
    """Linear layers with tanh between them; the weights are drawn from torch's generator.

    Args:
        in_features: inputs, ≥ 1.
        out_features: outputs, ≥ 1.
        hidden: width of each hidden layer.
        std: draw all parameters from a normal with this deviation, ≥ 0; None draws them as `torch.nn.Linear` does.
        bias: whether the layers have a bias.
    """
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((in_features, *hidden, out_features)):
        layers += [nn.Linear(wide, narrow, bias=bias), nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    if std is not None:
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(std=std)
    return model
