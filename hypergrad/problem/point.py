"""Looks at the inner loss and its gradient, and what they say of a training run."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves
from hypergrad.core.errors import NonFiniteError
from hypergrad.core.hyperparameter import shown
from hypergrad.problem.base import InnerProblem

_GROWTH = 1e4
"""A gradient this many times its first norm, with a higher loss too, is a run that blew up though not yet infinite."""


@dataclass(frozen=True)
class Point:
    """The inner loss and the norm of the optimality condition at some parameters.

    Attributes:
        loss: g(w, λ).
        grad_norm: ‖φ(w, λ)‖, which is ‖∇_w g(w, λ)‖ where a problem has no condition of its own.
    """

    loss: float
    grad_norm: float

    @classmethod
    def of(cls, loss: Tensor, grad: Tensor) -> "Point":
        """From the loss, shape (), and its gradient, flat."""
        return cls(loss=loss.item(), grad_norm=torch.linalg.vector_norm(grad.detach()).item())

    @property
    def is_finite(self) -> bool:
        """Whether both numbers are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def look(problem: InnerProblem, params: Tensors, hparams: Tensors, t: int) -> Point:
    """The inner loss and ‖φ‖ at `params` on the batch of step t."""
    batch = problem.inner_batch(t)
    with torch.no_grad():
        if problem.is_minimisation:
            loss, phi = problem.inner_loss_and_gradient(params, hparams, batch)
        else:
            loss = problem.inner_loss(params, hparams, batch)
            phi = problem.optimality(leaves(params), hparams, batch)
        return Point.of(loss, flatten(phi))


def require_finite(point: Point, hparams: Tensors) -> None:
    """Require that the inner loss and its gradient are finite at the start of training, or where there is none.

    Raises:
        NonFiniteError: if they are NaN or infinite.
    """
    if not point.is_finite:
        values = ", ".join(f"{name} = {shown(value)}" for name, value in hparams.items())
        raise NonFiniteError(
            f"Before any training the inner loss is {point.loss:.3g} and its gradient norm {point.grad_norm:.3g}, "
            f"with {values}. Look for NaN in the train data and for a hyperparameter that went too far."
        )


def blew_up(start: Point, end: Point) -> bool:
    """Whether training from `start` to `end` left the finite numbers, or is plainly on its way there."""
    return not end.is_finite or (end.loss > start.loss and end.grad_norm > _GROWTH * start.grad_norm > 0)
