"""The inner loss at fixed hyperparameters on one batch."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.accumulation import Summand, accumulated, accumulated_loss
from hypergrad.core.autodiff import Tensors, flatten, leaves
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.evaluation import InnerEvaluation
from hypergrad.problem.parts import require_parts, require_sum, scaled_loss


@dataclass(frozen=True)
class Oracle:
    """w ↦ g(w, λ) and ∇_w g(w, λ) at a fixed λ on one batch: all that a training step or a product uses.

    Attributes:
        problem: gives g, and with it the optimality condition φ, by default ∇_w g.
        hparams: λ in natural units.
        batch: the inner batch.
        is_part: whether the batch is a part of another, so that it is not divided further.
    """

    problem: InnerProblem
    hparams: Tensors
    batch: Any = None
    is_part: bool = False

    def __call__(self, params: Tensors) -> tuple[Tensor, Tensors]:
        """g(w, λ), shape (), and ∇_w g(w, λ), shaped as w, differentiable if grad mode is enabled."""
        parts = self.parts()
        if parts is None:
            return self.problem.inner_loss_and_gradient(params, self.hparams, self.batch)
        summands = [part._with_gradient(list(params), share) for part, share in parts]
        loss, *grads = accumulated(summands, [*params.values(), *self.hparams.values()])
        return loss, dict(zip(params, grads, strict=True))  # type: ignore[return-value]

    def loss(self, params: Tensors) -> Tensor:
        """g(w, λ), shape ()."""
        parts = self.parts()
        if parts is None:
            return self.problem.inner_loss(params, self.hparams, self.batch)
        names, loss = (list(params), list(self.hparams)), self.problem.inner_loss
        summands = [scaled_loss(loss, names, part.batch, share) for part, share in parts]
        return accumulated_loss(summands, [*params.values(), *self.hparams.values()])

    def parts(self) -> "list[tuple[Oracle, float]] | None":
        """The oracles of the parts of the batch with their shares, of which loss and gradient are sums; None if none.

        Also raised, by what it calls: ValueError if the shares do not have the sum 1, or φ is not ∇_w g.
        """
        parts = None if self.is_part else self.problem.inner_parts(self.batch)
        if parts is None:
            return None
        require_sum(self.problem)
        parts = require_parts(parts, f"{type(self.problem).__name__}.inner_parts")
        return [(replace(self, batch=part, is_part=True), share) for part, share in parts]

    def _with_gradient(self, names: list[str], share: float) -> Summand:
        """(*w, *λ) ↦ share · (g, ∇_w g), in the order of the names of w."""

        def summand(*tensors: Tensor) -> tuple[Tensor, ...]:
            w = dict(zip(names, tensors[: len(names)], strict=True))
            hp = dict(zip(self.hparams, tensors[len(names) :], strict=True))
            loss, grad = self.problem.inner_loss_and_gradient(w, hp, self.batch)
            return share * loss, *(share * grad[name] for name in names)

        return summand

    def optimality(self, params: Tensors) -> Tensors:
        """φ(w, λ), shaped as w, differentiable if grad mode is enabled.

        Raises:
            ValueError: if the problem's condition is not shaped as w.
        """
        if self.problem.is_minimisation:
            return self(params)[1]
        phi = self.problem.optimality(params, self.hparams, self.batch)
        wanted, met = ({name: tuple(x.shape) for name, x in xs.items()} for xs in (params, phi))
        if wanted != met:
            raise ValueError(
                f"{type(self.problem).__name__}.optimality must return tensors shaped as the parameters, {wanted}, but "
                f"it returned {met}."
            )
        return phi

    def loss_and_optimality(self, params: Tensors) -> tuple[Tensor, Tensors]:
        """g, shape (), and φ, shaped as w, from one forward pass if φ = ∇_w g; otherwise g is without a graph."""
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
