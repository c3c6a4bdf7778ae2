"""Scales of the initial weights."""

from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.effect.scope import Scoped


@dataclass(frozen=True, kw_only=True)
class InitScale(Scoped):
    """Training starts from λ w₀ instead of w₀, with one λ for all entries, or one per tensor, feature, output or entry.

    It requires an estimator that differentiates through training from its start (`Unrolled` or `Forward`, with
    `warm_start=False` in the trainer), because an optimum does not depend on where training starts.

    Source: Maclaurin, Duvenaud & Adams, "Gradient-based hyperparameter optimization through reversible learning", ICML
    (2015).
    """

    init: float = 1.0

    def initial(self, value: Tensor, params: Tensors) -> Tensors:
        tensors = self.chosen(params)
        factors = self.factors(value, tensors)
        return params | {name: factor * w for factor, (name, w) in zip(factors, tensors.items(), strict=True)}
