"""The inner loss as a function of one vector, for solvers that search along a line."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from hypergrad.core.autodiff import Tensors, detach, flatten, unflatten
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import State


@dataclass(frozen=True)
class Trial:
    """The inner loss and its gradient at a point.

    Attributes:
        w: the parameters, flat, shape (n,).
        loss: g(w).
        grad: ∇g(w), shape (n,).
    """

    w: Tensor
    loss: float
    grad: Tensor


def kept(trial: Trial) -> Tensors:
    """What a solver keeps of a trial in its state, besides the parameters."""
    return {"loss": trial.w.new_tensor(trial.loss), "grad": trial.grad}


def known(state: State) -> tuple[float, float] | None:
    """The loss and gradient norm in a state that may keep them."""
    trial = state.get("trial")
    return None if trial is None else (trial["loss"].item(), torch.linalg.vector_norm(trial["grad"]).item())


@dataclass(frozen=True)
class Objective:
    """g as a function of the flat w, on a batch that is the same at every step.

    Attributes:
        problem: gives g.
        hparams: λ, detached.
        like: the parameters' names and shapes.
        batch: the inner batch.
    """

    problem: InnerProblem
    hparams: Tensors
    like: Tensors
    batch: Any

    @classmethod
    def of(cls, solver: object, problem: InnerProblem, like: Tensors, hparams: Tensors, step: int) -> "Objective":
        """The objective that `solver` meets at inner step `step`.

        Raises:
            ValueError: if the next batch is another one.
        """
        batch = problem.inner_batch(step)
        if not _equal(batch, problem.inner_batch(step + 1)):
            name = type(solver).__name__
            raise ValueError(
                f"{name} needs the same inner loss at every step, but {type(problem).__name__}.inner_batch({step}) and "
                f"inner_batch({step + 1}) differ. Return all of the data at every step, or train on mini-batches with "
                "Momentum or Adam."
            )
        return cls(problem, detach(hparams), like, batch)

    def __call__(self, w: Tensor) -> Trial:
        """g and its gradient at w, without a graph."""
        with torch.no_grad():
            loss, grad = self.problem.inner_loss_and_gradient(unflatten(w, self.like), self.hparams, self.batch)
            return Trial(w, loss.item(), flatten(grad))


def _equal(a: Any, b: Any) -> bool:
    """Whether two batches, any nesting of tensors and values, are the same."""
    if a is b:
        return True
    (leaves, tree), (others, other_tree) = pytree.tree_flatten(a), pytree.tree_flatten(b)
    return tree == other_tree and all(_same(x, y) for x, y in zip(leaves, others, strict=True))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x is y or torch.equal(x, y)
    return bool(x is y or x == y)
