"""Smooth approximations of L1 penalties."""

from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.validation import require_real
from hypergrad.effect.scope import Scoped


@dataclass(frozen=True, kw_only=True)
class L1(Scoped):
    """The penalty r(w) = Σ_j λ_j (√(w_j² + ε²) − ε), one λ for all, or one per tensor, feature, output or entry.

    It is at most λ ε below λ |w|, and as smooth as the estimators require. Its curvature is up to λ/ε, so that the
    learning rate must be below 2ε/λ. Parameters come close to 0, but do not reach it.

    Attributes:
        smoothing: ε > 0, in units of the parameters.

    Source: Tibshirani, "Regression shrinkage and selection via the lasso", J. Royal Statistical Society B (1996).
    """

    init: float = 1e-3
    smoothing: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_real(self, "smoothing", above=0)

    def penalty(self, value: Tensor, params: Tensors) -> Tensor:
        eps = self.smoothing
        return self.total(value, params, lambda w: (w.square() + eps**2).sqrt() - eps)
