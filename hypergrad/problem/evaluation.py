"""The inner loss and the norm of its gradient at a point, and whether they are finite or blew up."""

import math
from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import NonFiniteError
from hypergrad.core.hyperparameter import shown
from hypergrad.core.length import length

_GROWTH = 1e4
"""If the gradient norm and the loss rise and the norm by more than this factor, a run blew up though still finite.

A judgement: large enough to allow a run that rises at first, and small beside the values that divergence reaches."""


@dataclass(frozen=True)
class InnerEvaluation:
    """The inner loss and the norm of the optimality condition at some parameters.

    Attributes:
        loss: g(w, λ).
        grad_norm: ‖φ(w, λ)‖, which is ‖∇_w g(w, λ)‖ if the problem has no condition of its own.
    """

    loss: float
    grad_norm: float

    @classmethod
    def of(cls, loss: Tensor, grad: Tensor) -> "InnerEvaluation":
        """From the loss, shape (), and its gradient, flat."""
        return cls(loss=loss.item(), grad_norm=length(grad.detach()))

    @property
    def is_finite(self) -> bool:
        """Whether both numbers are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def require_finite(evaluation: InnerEvaluation, hparams: Tensors) -> None:
    """Require that the inner loss and its gradient are finite at the start of training, or at the given parameters.

    Raises:
        NonFiniteError: if they are NaN or infinite.
    """
    if not evaluation.is_finite:
        values = ", ".join(f"{name} = {shown(value)}" for name, value in hparams.items())
        raise NonFiniteError(
            f"Before any training the inner loss is {evaluation.loss:.3g} and its gradient norm "
            f"{evaluation.grad_norm:.3g}, with {values}. Look for NaN in the train data and for a "
            "hyperparameter that went too far."
        )


def blew_up(start: InnerEvaluation, end: InnerEvaluation) -> bool:
    """Whether training from `start` to `end` reached values that are not finite, or clearly diverges."""
    return not end.is_finite or (end.loss > start.loss and end.grad_norm > _GROWTH * start.grad_norm > 0)
