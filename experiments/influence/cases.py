"""What is trained: four networks, each stopped early and trained to the end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.influence.networks import LENGTH, NETWORKS, VOCABULARY

TRAIN, MOMENTUM = 1000, 0.9
WEIGHTS = "weights"


@dataclass(frozen=True)
class Setting:
    """How long a network is trained, and by what.

    Attributes:
        lr: by step.
        steps: on mini-batches.
    """

    lr: float | hg.Cosine
    steps: int

    @property
    def solver(self) -> hg.InnerSolver:
        """What trains it."""
        return hg.Momentum(lr=self.lr, momentum=MOMENTUM)

    @property
    def damping(self) -> float:
        """1/τ, τ = Σ_t lr_t / (1 − momentum): a penalty that keeps parameters as near their start as a time τ does."""
        total = self.lr.values(self.steps).sum().item() if isinstance(self.lr, hg.Cosine) else self.lr * self.steps
        return (1 - MOMENTUM) / total


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        name: of the network, in `NETWORKS`.
        data: the splits, from the folder of the TREC questions.
        settings: by "early" and "end".
        l2: penalty on the parameters.
        dev: dev examples.
        batch_size: examples of a training step.
    """

    name: str
    data: Callable[[str], hg.Splits]
    settings: dict[str, Setting]
    l2: float
    dev: int = 100
    batch_size: int = 100

    def problem(self, root: str, seed: int) -> hg.Supervised:
        """The problem with a weight for each train example; the seed draws initial weights and batches."""
        data = self.data(root)
        (X, y), (X_dev, y_dev) = data.train, data.dev
        torch.manual_seed(seed)
        return hg.Supervised(
            model=NETWORKS[self.name](),
            loss=cross_entropy,
            train=(X[:TRAIN], y[:TRAIN]),
            dev=(X_dev[: self.dev], y_dev[: self.dev]),
            hyperparameters={"l2": hg.L2(init=self.l2), WEIGHTS: hg.ExampleWeights()},
            batch_size=self.batch_size,
            seed=seed,
        )


def settings(lr: float, early: int, end: int) -> dict[str, Setting]:
    """A few steps at a fixed rate, or many at a rate that falls to zero."""
    return {"early": Setting(lr, early), "end": Setting(hg.Cosine(base=lr, steps=end), end)}


def fashion(root: str) -> hg.Splits:
    """Images of clothes."""
    return hg.idx_images(train=TRAIN, dev=100, test=1)


CASES = {
    case.name: case
    for case in (
        Case("digits", lambda root: hg.digits(), settings(0.1, 30, 400), l2=1e-3),
        Case("Fashion-MNIST, MLP", fashion, settings(0.03, 30, 300), l2=3e-3),
        Case("Fashion-MNIST, CNN", fashion, settings(0.03, 30, 150), l2=3e-3, dev=50),
        Case(
            "TREC",
            lambda root: hg.trec_questions(root, labels="right", vocabulary=VOCABULARY, length=LENGTH),
            settings(0.1, 30, 100),
            l2=1e-3,
            dev=50,
        ),
    )
}
