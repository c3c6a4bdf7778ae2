"""The inner loss at fixed hyperparameters on one batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.evaluation import InnerEvaluation


@dataclass(frozen=True)
class Oracle:
    """w ↦ g(w, λ) and ∇_w g(w, λ) at a fixed λ on one batch: all that a training step or a product uses.

    Attributes:
        problem: gives g, and with it the optimality condition φ, by default ∇_w g.
        hparams: λ in natural units.
        batch: the inner batch.
    """

    problem: InnerProblem
    hparams: Tensors
    batch: Any = None

    def __call__(self, params: Tensors) -> tuple[Tensor, Tensors]:
        """g(w, λ), shape (), and ∇_w g(w, λ), shaped as w, differentiable if grad mode is enabled."""
        return self.problem.inner_loss_and_gradient(params, self.hparams, self.batch)

    def loss(self, params: Tensors) -> Tensor:
        """g(w, λ), shape ()."""
        return self.problem.inner_loss(params, self.hparams, self.batch)

    def optimality(self, params: Tensors) -> Tensors:
        """φ(w, λ), shaped as w, differentiable if grad mode is enabled.

        Raises:
            ValueError: if the problem's condition is not shaped as w.
        """
        phi = self.problem.optimality(params, self.hparams, self.batch)
        wanted, met = ({name: tuple(x.shape) for name, x in xs.items()} for xs in (params, phi))
        if wanted != met:
            raise ValueError(
                f"{type(self.problem).__name__}.optimality must return tensors shaped as the parameters, {wanted}, but "
                f"it returned {met}."
            )
        return phi

    def loss_and_optimality(self, params: Tensors) -> tuple[Tensor, Tensors]:
        """g and φ, from one forward pass if φ = ∇_w g; otherwise g is without a graph."""
        if self.problem.is_minimisation:
            return self(params)
        with torch.no_grad():
            loss = self.loss(params)
        return loss, self.optimality(params)

    @torch.no_grad()
    def evaluate(self, params: Tensors) -> InnerEvaluation:
        """g and ‖φ‖ at `params`."""
        loss, phi = self.loss_and_optimality(leaves(params))
        return InnerEvaluation.of(loss, flatten(phi))
