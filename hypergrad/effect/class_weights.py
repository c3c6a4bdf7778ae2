"""Weights of the classes."""

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.effect.base import Effect, Site


@dataclass(frozen=True, kw_only=True)
class ClassWeights(Effect):
    """A weight λ_k > 0 for each class: g = 1/N Σ_i λ_{y_i} u_i, for example larger weights for rare classes.

    The loss keeps its denominator N, so that weights of 1 change nothing, whatever weights the loss has itself.

    Attributes:
        init: the initial weight, > 0.

    Source: Cui, Jia, Lin, Song & Belongie, "Class-balanced loss based on effective number of samples", CVPR (2019).
    """

    init: float = 1.0

    def space(self, site: Site) -> Hyperparameter:
        labels = tuple(f"class {k}" for k in range(site.classes(self)))
        return Hyperparameter(self.init, shape=(len(labels),), constraint=constraints.positive, labels=labels)

    def weights(self, value: Tensor, rows: Tensor | None, y: Tensor) -> Tensor:
        if y.ndim != 1:
            raise ValueError(f"ClassWeights needs one class for each example, but the targets are {tuple(y.shape)}.")
        return value[y.long().clamp(0, len(value) - 1)]  # the loss ignores targets that are no class
