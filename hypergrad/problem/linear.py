"""Softmax regression, the classifier that problems on images start from."""

from torch import nn


def softmax_regression(num_features: int, num_classes: int) -> nn.Module:
    """A linear layer whose weights are zero, so that every class is as likely."""
    model = nn.Linear(num_features, num_classes)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model
