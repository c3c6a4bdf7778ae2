"""The networks of the experiment, which peers also build, in an environment without the rest of ours."""

from collections.abc import Callable

from torch import nn

from hypergrad.model.network import perceptron
from hypergrad.model.transformer import TransformerClassifier

VOCABULARY, LENGTH, KINDS = 500, 16, 6
"""Word numbers, words of a question, and kinds of questions."""


def convolutional() -> nn.Module:
    """Two convolutions and a linear layer, for images of 28 × 28 pixels in a row."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 8, 5, stride=2),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(200, 10),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits": lambda: perceptron(64, 10, (32,)),
    "Fashion-MNIST, MLP": lambda: perceptron(784, 10, (32,)),
    "Fashion-MNIST, CNN": convolutional,
    "TREC": lambda: TransformerClassifier(vocabulary=VOCABULARY, num_outputs=KINDS, length=LENGTH, width=16),
}
"""By the name of the case; initial weights are drawn from torch's generator."""
