"""Data hyper-cleaning: a learned weight for each example finds the wrong labels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions.constraints import unit_interval
from torch.nn.functional import cross_entropy

from hypergrad.core.autodiff import Tensors
from hypergrad.core.validation import require_real
from hypergrad.data.tables import Splits
from hypergrad.effect.example_weights import ExampleWeights
from hypergrad.model.network import softmax_regression
from hypergrad.problem.supervised.supervised import Supervised

_START = 0.5
"""The initial weight, and the threshold: the middle of (0, 1), where no example is called wrong or right yet."""


class HyperCleaning(Supervised):
    """A classifier trained on partly wrong labels, with a weight λ_i in (0, 1) for each of its n train examples.

    g(w, λ) = (1/n) Σ_i λ_i ℓ_i(w) + l2 ‖w‖² on train with wrong labels, f(w) = (1/m) Σ_j ℓ_j(w) on dev with right
    labels, ℓ the cross-entropy. Weights start at 1/2; an example with a smaller weight is called wrong. The metrics
    `precision`, `recall` and `f1` compare these calls with the original labels.

    Args:
        data: inputs of shape (n, p) and classes from 0, all correct.
        noise: the share of the train labels to replace by another class, drawn uniformly, in (0, 1).
        l2: the penalty on all parameters, > 0.
        model: the classifier; None for softmax regression from zero weights.
        batch_size: examples of a training step, ≥ 1; None takes all.
        fixed_batches: as in `Supervised`, and so are micro_batch, dev_batch_size and dev_sample.
        seed: of the wrong labels and the batches.

    Raises:
        ValueError: if noise or l2 is out of its range, or the data does not fit the model.

    Examples:
        >>> problem = hg.HyperCleaning(hg.first_of(hg.digits(), train=100), noise=0.3)
        >>> estimator = hg.Unrolled(solver=hg.GradientDescent(lr=1.0), inner_steps=20)
        >>> result = hg.fit(problem, estimator, lambda u: torch.optim.Adam(u, lr=0.5), 5, progress=False)
        >>> result.last.metrics["f1"] > 0.6
        True

    Source: Franceschi, Donini, Frasconi & Pontil, "Forward and reverse gradient-based hyperparameter optimization",
    ICML (2017).
    """

    is_wrong: Tensor

    def __init__(
        self,
        data: Splits,
        *,
        noise: float = 0.5,
        l2: float = 1e-3,
        model: nn.Module | None = None,
        batch_size: int | None = None,
        fixed_batches: bool = False,
        seed: int = 0,
        micro_batch: int | None = None,
        dev_batch_size: int | None = None,
        dev_sample: int | None = None,
    ) -> None:
        num_classes = 1 + int(data.train.y.max())
        y, is_wrong = corrupted(data.train.y, num_classes, noise=noise, seed=seed)
        super().__init__(
            model=model or softmax_regression(data.train.X.shape[1], num_classes),
            loss=cross_entropy,
            train=(data.train.X, y),
            dev=data.dev,
            test=data.test,
            hyperparameters={"weights": ExampleWeights(init=_START, constraint=unit_interval)},
            batch_size=batch_size,
            fixed_batches=fixed_batches,
            seed=seed,
            micro_batch=micro_batch,
            dev_batch_size=dev_batch_size,
            dev_sample=dev_sample,
        )
        self.l2 = l2
        require_real(self, "l2", above=0)
        self.register_buffer("is_wrong", is_wrong)

    def settings(self) -> dict[str, object]:
        return super().settings() | {"l2": self.l2}

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        penalty = torch.stack([w.square().sum() for w in params.values()]).sum()
        return super().loss_of_outputs(outputs, params, hparams, batch) + self.l2 * penalty

    def row_owners(self) -> Sequence[str]:
        is_plain = type(self) is HyperCleaning and self.examples is None
        return ("weights",) if is_plain else ()

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        called = hparams["weights"][: len(self.is_wrong)] < _START  # a joined dev part has no wrong labels
        hits = (called & self.is_wrong).sum().item()
        num_called, num_wrong = called.sum().item(), self.is_wrong.sum().item()
        found = {
            "precision": hits / max(num_called, 1),
            "recall": hits / num_wrong,
            "f1": 2 * hits / (num_called + num_wrong),
        }
        return super().metrics(params, hparams) | found


def corrupted(y: Tensor, num_classes: int, *, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Classes, with a share of them replaced by others.

    Args:
        y: classes from 0 to num_classes − 1, shape (n,).
        num_classes: K ≥ 2.
        noise: the share, in (0, 1); at least one example and not all of them are replaced.
        seed: of the draw.

    Returns:
        The classes, and which of them are wrong, both of shape (n,).

    Raises:
        ValueError: if noise or the number of classes is out of its range.
    """
    count = round(noise * len(y))
    if num_classes < 2 or not 1 <= count < len(y):
        raise ValueError(
            f"Wrong labels need at least 2 classes and a noise that makes between 1 and {len(y) - 1} of the {len(y)} "
            f"labels wrong, but there are {num_classes} classes and noise = {noise:g} makes {count} wrong."
        )
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(y), generator=generator)[:count]
    is_wrong = torch.zeros(len(y), dtype=torch.bool)
    is_wrong[rows] = True
    shift = torch.randint(1, num_classes, (len(y),), generator=generator)
    return torch.where(is_wrong, (y + shift) % num_classes, y), is_wrong
