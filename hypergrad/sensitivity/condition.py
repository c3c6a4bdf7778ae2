"""The optimality condition φ(w, λ) = 0 along a path: its Taylor coefficients."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves, unflatten
from hypergrad.core.errors import NonFiniteError, NoTaylorRuleWarning
from hypergrad.problem.base import InnerProblem
from hypergrad.taylor import Polynomial
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.nested import nested_derivatives


@dataclass(frozen=True)
class Condition:
    """φ of an inner problem on one batch, by default ∇_w g.

    Attributes:
        problem: gives g, or φ.
        batch: the inner batch.
        like: the parameters' names and shapes.
    """

    problem: InnerProblem
    batch: Any
    like: Tensors

    def path(
        self, w: Tensor, hparams: Tensors, direction: Tensors, order: int, solve: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """w₁, …, w_K of the path w(t) = Σ_k w_k tᵏ on which φ stays zero as λ moves along δ.

        Args:
            w: w₀, shape (n,).
            hparams: λ.
            direction: δ, shaped as λ, or m of them, with one more axis in front.
            order: K ≥ 1.
            solve: b ↦ (∂φ/∂w)⁻¹ b, for b of shape (n,), or for m of them in the rows of (m, n).

        Returns:
            K tensors of shape (n,), or (m, n).
        """
        several = any(direction[name].ndim > value.ndim for name, value in hparams.items())
        coefficient = self.coefficients if several else self.coefficient
        path = [w]
        for _ in range(order):
            path.append(-solve(coefficient(path, hparams, direction)))
        return path[1:]

    def coefficient(self, w: Sequence[Tensor], hparams: Tensors, direction: Tensors) -> Tensor:
        """Coefficient k of φ(w₀ + w₁ t + … + w_{k−1} t^{k−1}, λ + δ t), flat, shape (n,).

        For φ = ∇_w g it is ∂/∂w₀ of coefficient k of g along the path: one evaluation of g on polynomials and one
        backward pass.

        Args:
            w: w₀, …, w_{k−1}, each of shape (n,); k ≥ 1.
            hparams: λ.
            direction: δ, shaped as λ.

        Returns:
            The coefficient, outside any graph.
        """
        if self.problem.is_minimisation:
            w0 = leaves(unflatten(w[0], self.like))
            with torch.enable_grad():
                top = self._top(self._objective, w0, w, hparams, direction)
                if not top.requires_grad:  # it does not depend on w₀
                    return torch.zeros_like(w[0])
                given = torch.autograd.grad(top, tuple(w0.values()), allow_unused=True, materialize_grads=True)
            return flatten(dict(zip(w0, given, strict=True)))
        with torch.no_grad():
            return self._top(self._phi, unflatten(w[0], self.like), w, hparams, direction)

    def coefficients(self, w: Sequence[Tensor], hparams: Tensors, directions: Tensors) -> Tensor:
        """The same for m directions δ at once, shape (m, n); w₀ is shared, w₁, … have shape (m, n)."""

        def one(higher: Sequence[Tensor], direction: Tensors) -> Tensor:
            def top(w0: Tensor) -> Tensor:
                path = (w0, *higher)
                function = self._objective if self.problem.is_minimisation else self._phi
                return self._top(function, unflatten(w0, self.like), path, hparams, direction)

            return torch.func.grad(top)(w[0]) if self.problem.is_minimisation else top(w[0])

        return torch.vmap(one)(list(w[1:]), directions)

    def _objective(self, w: Tensors, hparams: Tensors) -> Tensor:
        return self.problem.inner_loss(w, hparams, self.batch)

    def _phi(self, w: Tensors, hparams: Tensors) -> Tensor:
        return flatten(self.problem.optimality(w, hparams, self.batch))

    def _top(
        self,
        function: Callable[[Tensors, Tensors], Tensor],
        w0: Tensors,
        w: Sequence[Tensor],
        hparams: Tensors,
        direction: Tensors,
    ) -> Tensor:
        """Coefficient k = len(w) of function(w(t), λ(t))."""
        k = len(w)
        higher = [unflatten(wi, self.like) for wi in w[1:]]
        path = {name: Polynomial([p, *[wi[name] for wi in higher], None]) for name, p in w0.items()}
        rest = (None,) * (k - 1)
        moving = {name: Polynomial([value, direction[name], *rest]) for name, value in hparams.items()}
        try:
            value = function(path, moving)  # type: ignore[arg-type]
            first, top = (value.coefs[0], value.coefs[k]) if isinstance(value, Polynomial) else (value, None)
            return torch.zeros_like(first) if top is None else top
        except CannotExpandError as error:
            _warn(error)

        def along(t: Tensor) -> Tensor:
            at = {name: p + sum(wi[name] * t ** (i + 1) for i, wi in enumerate(higher)) for name, p in w0.items()}
            return function(at, {name: value + t * direction[name] for name, value in hparams.items()})

        return nested_derivatives(along, k, w[0])[k] / math.factorial(k)


def _warn(error: CannotExpandError) -> None:
    warnings.warn(
        f"The inner problem has no Taylor arithmetic, because of {error}, so all of it was expanded by nested "
        "derivatives, whose cost grows fourfold with each order. Write it with operations that make new tensors of old "
        "ones.",
        NoTaylorRuleWarning,
        stacklevel=5,
    )


def require_finite_coefficients(coefficients: Tensor) -> None:
    """Require that coefficients of φ along a path are finite.

    Raises:
        NonFiniteError: if they are not.
    """
    largest = coefficients if coefficients.ndim == 0 else torch.linalg.vector_norm(coefficients, torch.inf)
    if not largest.item() < math.inf:
        raise NonFiniteError(
            "A coefficient of the optimality condition along the path is NaN or infinite; look for an operation whose "
            "higher derivatives are infinite at these parameters, such as a square root at 0."
        )
