"""The inner loss as a function of one vector, for solvers that search along a line."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.length import length
from hypergrad.problem.oracle import Oracle
from hypergrad.solver.base import State


@dataclass(frozen=True)
class LineSearchPoint:
    """The inner loss and its gradient at a point.

    Attributes:
        w: the parameters, flat, shape (n,).
        loss: g(w).
        grad: ∇g(w), shape (n,).
    """

    w: Tensor
    loss: float
    grad: Tensor


def point_entries(point: LineSearchPoint) -> Tensors:
    """What a solver keeps of a point in its state, besides the parameters."""
    return {"loss": point.w.new_full((), point.loss), "grad": point.grad}


def stored_loss_and_norm(state: State) -> tuple[float, float] | None:
    """The loss and gradient norm in a state that may keep them."""
    point = state.get("point")
    return None if point is None else (point["loss"].item(), length(point["grad"]))


@dataclass(frozen=True)
class Objective:
    """w ↦ g(w) and ∇g(w) on flat vectors.

    Attributes:
        oracle: g on a batch that is the same at every step.
        like: the parameters' names and shapes.
    """

    oracle: Oracle
    like: Tensors

    def __call__(self, w: Tensor) -> LineSearchPoint:
        """g and its gradient at w, without a graph."""
        with torch.no_grad():
            loss, grad = self.oracle(unflatten(w, self.like))
            return LineSearchPoint(w, loss.item(), flatten(grad))
