"""Scales of the inputs."""

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.effect.base import Effect, Site


@dataclass(frozen=True, kw_only=True)
class InputScale(Effect):
    """Inputs λ x instead of x, in training and in evaluation: the weight of a feature under one common penalty.

    Attributes:
        init: the initial scale, > 0.
        per_feature: one scale for each feature, shaped as one input, instead of one for all.

    Source: MacKay, "Bayesian non-linear modelling for the prediction competition", ASHRAE Transactions (1994).
    """

    init: float = 1.0
    per_feature: bool = True

    def space(self, site: Site) -> Hyperparameter:
        X = site.tensor(self)
        if not X.is_floating_point():
            raise ValueError(
                f"InputScale needs inputs that are floating-point numbers, but they are of {X.dtype}; scale the "
                "features that the model computes from them instead."
            )
        shape = tuple(X.shape[1:]) if self.per_feature else ()
        labels = site.columns if shape == (len(site.columns),) else ()
        return Hyperparameter(self.init, shape=shape, constraint=constraints.positive, labels=labels)

    def inputs(self, value: Tensor, X: Tensor) -> Tensor:
        return value * X
