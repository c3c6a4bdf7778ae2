"""What is trained: four networks, each stopped early and trained to the end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.influence.networks import LENGTH, NETWORKS, VOCABULARY

TRAIN, DEV = 1000, 100
WEIGHTS = "weights"


@dataclass(frozen=True)
class Setting:
    """How long a network is trained, and by what.

    Attributes:
        solver: the inner solver.
        steps: on mini-batches.
    """

    solver: hg.InnerSolver
    steps: int


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        name: of the network, in `NETWORKS`.
        data: the splits, from the folder of the TREC questions.
        settings: by "early" and "end".
        l2: penalty on the parameters.
        batch_size: examples of a training step.
    """

    name: str
    data: Callable[[str], hg.Splits]
    settings: dict[str, Setting]
    l2: float
    batch_size: int = 100

    def problem(self, root: str, seed: int, sizes: tuple[int, int] = (TRAIN, DEV)) -> hg.Supervised:
        """The problem with a weight for each train example; the seed draws initial weights and batches."""
        data = self.data(root)
        train, dev = (hg.Split(X[:n], y[:n]) for (X, y), n in zip((data.train, data.dev), sizes, strict=True))
        torch.manual_seed(seed)
        return hg.Supervised(
            model=NETWORKS[self.name](),
            loss=cross_entropy,
            train=train,
            dev=dev,
            hyperparameters={"l2": hg.L2(init=self.l2), WEIGHTS: hg.ExampleWeights()},
            batch_size=min(self.batch_size, len(train.y) // 2),
            seed=seed,
        )


def momentum(lr: float, early: int, end: int) -> dict[str, Setting]:
    """A few steps at a fixed rate, or many at a rate that falls to zero."""
    return {
        "early": Setting(hg.Momentum(lr=lr, momentum=0.9), early),
        "end": Setting(hg.Momentum(lr=hg.Cosine(base=lr, steps=end), momentum=0.9), end),
    }


def adam(lr: float, early: int, end: int) -> dict[str, Setting]:
    """The same by Adam."""
    return {
        "early": Setting(hg.Adam(lr=lr), early),
        "end": Setting(hg.Adam(lr=hg.Cosine(base=lr, steps=end)), end),
    }


def fashion(root: str) -> hg.Splits:
    """Images of clothes."""
    return hg.idx_images(train=TRAIN, dev=DEV, test=1)


CASES = {
    case.name: case
    for case in (
        Case("digits", lambda root: hg.digits(), momentum(0.1, 30, 400), l2=1e-3),
        Case("Fashion-MNIST, MLP", fashion, momentum(0.03, 30, 400), l2=3e-3),
        Case("Fashion-MNIST, CNN", fashion, momentum(0.03, 30, 400), l2=3e-3),
        Case(
            "TREC",
            lambda root: hg.trec_questions(root, labels="right", vocabulary=VOCABULARY, length=LENGTH),
            adam(3e-3, 30, 200),
            l2=1e-4,
        ),
    )
}
