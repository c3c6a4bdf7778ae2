"""A classifier with one L2 penalty for each of its weights, which every problem here is."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

import hypergrad as hg


class PenalisedClassifier(hg.InnerProblem):
    """g = cross-entropy on train + Σ_i λ_i w_i² / 2, f = cross-entropy on dev.

    Attributes:
        l2: the λ_i of all weights alike.
        damping: δ ≥ 0; the hypergradient asked for is −w ∘ v with (∂²g/∂w² + δI) v = ∂f/∂w.
        inner_tol: training stops once no entry of ∇g is larger.
    """

    l2: ClassVar[float]
    damping: ClassVar[float] = 0.0
    inner_tol: ClassVar[float] = 1e-8

    def __init__(self, X: Tensor, y: Tensor, X_dev: Tensor, y_dev: Tensor) -> None:
        super().__init__()
        self.X, self.y, self.X_dev, self.y_dev = X, y, X_dev, y_dev

    @abstractmethod
    def logits(self, params: hg.Tensors, X: Tensor) -> Tensor:
        """One row of 10 logits for each row of X."""

    @abstractmethod
    def hessian_product(self, params: hg.Tensors, l2: Tensor) -> Callable[[Tensor], Tensor]:
        """v ↦ (∂²g/∂w²) v on flat vectors, written out by hand; `l2` is λ, flat."""

    def hyperparameters(self) -> dict[str, hg.Hyperparameter]:
        return {
            f"l2_{name}": hg.Hyperparameter(self.l2, shape=tuple(w.shape), constraint=hg.positive)
            for name, w in self.init_params().items()
        }

    def inner_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        penalty = sum((hparams[f"l2_{name}"] * w * w).sum() for name, w in params.items()) / 2
        rows = batch or slice(None)
        return cross_entropy(self.logits(params, self.X[rows]), self.y[rows]) + penalty

    def outer_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        rows = batch or slice(None)
        return cross_entropy(self.logits(params, self.X_dev[rows]), self.y_dev[rows])

    def inner_share(self, batch: Any, rank: int, world: int) -> tuple[slice, float]:
        """The train rows of a rank, as a batch of the inner loss, and their share."""
        return _part(len(self.X), rank, world)

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[slice, float]:
        """The dev rows of a rank, likewise."""
        return _part(len(self.X_dev), rank, world)


def _part(num: int, rank: int, world: int) -> tuple[slice, float]:
    rows = slice(num * rank // world, num * (rank + 1) // world)
    return rows, (rows.stop - rows.start) / num
