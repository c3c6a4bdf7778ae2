"""The Taylor series of an optimum."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, flatten
from hypergrad.errors import ExtrapolationWarning
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolver
from hypergrad.sensitivity.optimum import Inner, Optimum
from hypergrad.validation import require_instance, require_int, require_real


@dataclass(frozen=True, kw_only=True)
class TaylorExpansion:
    """w*(λ₀ + δ) ≈ w₀ + w₁ + … + w_K, the Taylor series of the optimum, all orders from one factorisation.

    Along the path w(t) = Σ_k w_k tᵏ, λ(t) = λ₀ + δ t the optimality condition φ stays zero, so that each of its Taylor
    coefficients is zero. In the k-th, w_k enters as (∂φ/∂w) w_k only, and the rest is what φ gives on the lower terms:

        w_k = −(∂φ/∂w)⁻¹ [tᵏ] φ(w₀ + w₁ t + … + w_{k−1} t^{k−1}, λ₀ + δ t)

    So one order more is one more coefficient, by Taylor-mode arithmetic (`hypergrad.taylor`), and one more solve.

    Attributes:
        order: K ≥ 1.
        linsolve: how the systems with ∂φ/∂w are solved.
        tol: how far from zero φ may be at (w₀, λ₀), relative to its change over one unit of length, ≥ 0; None takes
            ε^⅜ of the dtype, 1.3e-6 in float64.

    Source: Giordano, Jordan & Broderick, "A higher-order Swiss Army infinitesimal jackknife" (2019); Griewank &
    Walther, "Evaluating derivatives", chapter 13 (2008).
    """

    order: int = 2
    linsolve: LinearSolver = field(default_factory=lambda: Auto(tol=1e-10, max_iter=1000))
    tol: float | None = None

    def __post_init__(self) -> None:
        require_int(self, "order", least=1)
        require_instance(self, "linsolve", LinearSolver)
        if self.tol is not None:
            require_real(self, "tol", least=0)

    def at(self, inner: Inner, params: Any, hparams: Any, *, inner_step: int = 0) -> "Expansion":
        """Expand around a solution.

        Args:
            inner: an inner problem, a loss g(w, λ), or `Root(φ)`.
            params: w₀ = w*(λ₀), as the inner problem or function takes it; not changed.
            hparams: λ₀; not changed.
            inner_step: whose batch the inner problem is taken on.

        Returns:
            The expansion.

        Raises:
            NotOptimalError: if φ(w₀, λ₀) is not zero.
        """  # noqa: DOC502
        return Expansion(
            Optimum.at(inner, params, hparams, linsolve=self.linsolve, tol=self.tol, inner_step=inner_step), self.order
        )


@dataclass(frozen=True)
class Expansion:
    """The Taylor series of w* around an optimum; w comes in the structure in which it was given.

    Attributes:
        optimum: w₀ and λ₀.
        order: of the last term.
    """

    optimum: Optimum
    order: int

    def derivatives(self, direction: Any) -> list[Any]:
        """The derivatives d^k/dt^k w*(λ₀ + δ t) at t = 0, k = 1, …, order.

        Args:
            direction: δ, shaped as λ, or m of them, with one more axis in front.

        Returns:
            One w for each order, with the same axis in front.
        """
        terms = self.flat_terms(self.optimum.direction(direction))
        return [self.optimum.shaped(math.factorial(k) * term) for k, term in enumerate(terms, start=1)]

    def terms(self, hparams: Any) -> list[Any]:
        """The terms w₁, …, w_K of the series at λ, or at m of them, with one more axis in front."""
        return [self.optimum.shaped(term) for term in self.flat_terms(self._step_to(hparams))]

    def predict(self, hparams: Any) -> Any:
        """W*(λ) to the order of the expansion, or at m of them, with one more axis in front.

        It warns where the terms suggest that the series does not converge at λ.
        """
        terms = self.flat_terms(self._step_to(hparams))
        radius = _radius(terms)
        if radius < 1:
            warnings.warn(
                f"λ is {1 / radius:.3g} times as far away as the radius within which the terms of the Taylor series "
                "suggest that it converges. Solve the inner problem there, or expand around a point on the way.",
                ExtrapolationWarning,
                stacklevel=2,
            )
        return self.optimum.shaped(flatten(self.optimum.params) + torch.stack(terms).sum(0))

    def radius(self, direction: Any) -> float:
        """How far along δ, in its own length, the series seems to converge: the least (‖w_m‖/‖w_k‖)^{1/(k−m)}.

        Here w_m is the first term that is not zero. Infinite at order 1, where there is nothing to tell it from.
        """
        return _radius(self.flat_terms(self.optimum.direction(direction)))

    def _step_to(self, hparams: Any) -> Tensors:
        return {name: x - self.optimum.hparams[name] for name, x in self.optimum.direction(hparams).items()}

    def flat_terms(self, direction: Tensors) -> list[Tensor]:
        """The terms w₁, …, w_K along δ by name, each of shape (n,) or (m, n)."""
        optimum, several = self.optimum, self.optimum.is_several(direction)
        path = [flatten(optimum.params)]
        for _ in range(self.order):
            if several:
                rest = optimum.condition.coefficients(path, optimum.hparams, direction).T
            else:
                rest = optimum.condition.coefficient(path, optimum.hparams, direction)
            term = -optimum.solve(rest)
            path.append(term.T if several else term)
        return path[1:]


def _radius(terms: list[Tensor]) -> float:
    sizes = torch.stack([torch.linalg.vector_norm(term.reshape(-1, term.shape[-1]), dim=1) for term in terms])
    radius = math.inf
    for column in sizes.T.tolist():
        first = next((m for m, size in enumerate(column) if size > 0), len(column))
        for k in range(first + 1, len(column)):
            if column[k] > 0:
                radius = min(radius, (column[first] / column[k]) ** (1 / (k - first)))
    return radius
