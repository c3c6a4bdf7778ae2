"""A fit as a function of the weights of its examples: fits without some of them, influence, standard errors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.sensitivity.linear_response import Response
from hypergrad.sensitivity.optimum import Optimum


@dataclass(frozen=True)
class WeightedFit:
    """A fit as a function of the weights of its examples.

    Attributes:
        optimum: the fit at the weights ω₀.
        name: of the hyperparameter that holds the weights.
        order: of the series.
        chunk: fits to predict at once.
    """

    optimum: Optimum
    name: str
    order: int
    chunk: int

    @property
    def weights(self) -> Tensor:
        """ω₀, shape (n,)."""
        return self.optimum.hparams[self.name]

    @cached_property
    def jacobian(self) -> Tensor:
        """dw*/dω on flat vectors, shape (p, n): the influence of each example on the fit."""
        others = {name: x for name, x in self.optimum.hparams.items() if name != self.name}
        p, n = self.optimum.stationarity.phi.numel(), self.weights.numel()
        if n <= p:
            zeros = {name: x.new_zeros(n, *x.shape) for name, x in others.items()}
            eye = torch.eye(n, dtype=self.weights.dtype, device=self.weights.device)
            return self.optimum.terms(self._ordered({**zeros, self.name: eye}), 1)[0].T
        return Response(self.optimum).rows(self.name)

    def leave_out(self, rows: Tensor | None = None) -> Any:
        """The fits without some of the examples.

        Args:
            rows: indices of the examples to leave out, shape (m, k) for k at a time, or (m,) for one at a time; None
                leaves out each of the n examples in turn.

        Returns:
            m fits along a first axis, in the structure of w.

        Raises:
            ValueError: if an index is out of range, or occurs twice in a row.
        """
        n = self.weights.numel()
        rows = torch.arange(n, device=self.weights.device) if rows is None else torch.as_tensor(rows)
        rows = rows[:, None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.is_floating_point() or (rows.numel() and not 0 <= rows.min() <= rows.max() < n):
            raise ValueError(
                f"rows must be integers from 0 to {n - 1} of shape (m,) or (m, k), but they have shape "
                f"{tuple(rows.shape)} and dtype {rows.dtype}, and lie from {rows.min()} to {rows.max()}."
            )
        if (rows.sort(1).values.diff() == 0).any():
            raise ValueError("Each row must hold an example once, but some hold one twice. Remove the repetitions.")
        if self.order == 1:
            shift = -(self.jacobian * self.weights)[:, rows].sum(2).T
            return self.optimum.shaped(flatten(self.optimum.params) + shift)
        kept = (self._kept(part) for part in rows.split(self.chunk))
        return self.optimum.shaped(torch.cat([self._predict(weights) for weights in kept]))

    def predict(self, weights: Tensor) -> Any:
        """w*(ω) at other weights, shape (n,), or at m of them, shape (m, n).

        Raises:
            ValueError: if they have another shape.
        """
        n = self.weights.numel()
        if weights.ndim not in (1, 2) or weights.shape[-1] != n:
            raise ValueError(
                f"The weights must have shape ({n},), one for each example, or (m, {n}), but they have shape "
                f"{tuple(weights.shape)}."
            )
        parts = [weights] if weights.ndim == 1 else list(weights.split(self.chunk))
        return self.optimum.shaped(torch.cat([self._predict(part) for part in parts]))

    def influence(self, outer_loss: Callable[[Any, Any], Tensor] | None = None) -> Tensor:
        """dF/dω_i of a dev loss F(ω) = f(w*(ω), ω) for each example, shape (n,), by one adjoint solve for all.

        To first order, leaving out example i changes the dev loss by −ω_i dF/dω_i, so positive examples are harmful.

        Args:
            outer_loss: f(w, λ), shape (); None means the outer loss of the inner problem.
        """
        optimum = self.optimum
        w, hp = leaves(optimum.params), leaves(optimum.hparams)
        with torch.enable_grad():
            if outer_loss is None:
                problem = optimum.condition.problem
                loss = accumulated_outer_loss(problem, w, hp, problem.whole_outer_batch())
            else:
                loss = outer_loss(optimum.to_params(w), optimum.to_hparams(hp))
            targets = (*w.values(), hp[self.name])
            *df_dw, direct = torch.autograd.grad(loss, targets, allow_unused=True, materialize_grads=True)
        return direct + Response(optimum).named_vjp(flatten(dict(zip(w, df_dw, strict=True))))[self.name]

    def covariance(self) -> Tensor:
        """The infinitesimal-jackknife covariance of the flat w, Σ_i (dw/dω_i)(dw/dω_i)ᵀ, shape (p, p).

        At ω = 1 it is H⁻¹ (Σ_i ∇ℓ_i ∇ℓ_iᵀ) H⁻¹, the sandwich estimator, which is right even if the model is wrong.
        """
        return self.jacobian @ self.jacobian.T

    def standard_errors(self) -> Any:
        """The square roots of the diagonal of `covariance`, in the structure of w, without the p × p matrix."""
        return self.optimum.shaped(torch.linalg.vector_norm(self.jacobian, dim=1))

    def _kept(self, rows: Tensor) -> Tensor:
        kept = self.weights.expand(len(rows), -1).clone()
        return kept.scatter_(1, rows, 0)

    def _predict(self, weights: Tensor) -> Tensor:
        lead = weights.shape[:-1]
        zeros = {name: x.new_zeros(*lead, *x.shape) for name, x in self.optimum.hparams.items()}
        direction = self._ordered({**zeros, self.name: weights - self.weights})
        terms = self.optimum.terms(direction, self.order)
        return flatten(self.optimum.params) + torch.stack(terms).sum(0)

    def _ordered(self, tensors: Tensors) -> Tensors:
        return {name: tensors[name] for name in self.optimum.hparams}
