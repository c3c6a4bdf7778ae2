"""The Taylor series of an optimum."""

from dataclasses import dataclass, field
from typing import Any

from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolver
from hypergrad.sensitivity.expansion import Expansion
from hypergrad.sensitivity.inner import Inner
from hypergrad.sensitivity.optimum import Optimum


@dataclass(frozen=True, kw_only=True)
class TaylorExpansion:
    """w*(λ₀ + δ) ≈ w₀ + w₁ + … + w_K, the Taylor series of the optimum, all orders from one factorisation.

    Along the path w(t) = Σ_k w_k tᵏ, λ(t) = λ₀ + δ t the optimality condition φ stays zero, so each of its Taylor
    coefficients is zero. In the k-th, w_k enters only as (∂φ/∂w) w_k, and the rest is φ on the lower terms:

        w_k = −(∂φ/∂w)⁻¹ [tᵏ] φ(w₀ + w₁ t + … + w_{k−1} t^{k−1}, λ₀ + δ t)

    So one more order is one more coefficient, by Taylor-mode arithmetic (`hypergrad.taylor`), and one more solve.

    Attributes:
        order: K ≥ 1.
        linsolve: solves the systems with ∂φ/∂w.
        tol: how far from zero φ may be at (w₀, λ₀), relative to its change over one unit of length, ≥ 0; None means
            ε^⅜ of the dtype, 1.3e-6 in float64.
        compile: run all terms as one compiled function, for up to 2000 parameters. It requires a C++ compiler, and some
            ten seconds once for each inner problem or function, order and shapes. The first result at each optimum is
            checked against the plain one. If it differs, or nothing can be compiled, a warning says why, and the plain
            one is used.

    Source: Giordano, Jordan & Broderick, "A higher-order Swiss Army infinitesimal jackknife" (2019); Griewank &
    Walther, "Evaluating derivatives", chapter 13 (2008).
    """

    order: int = 2
    linsolve: LinearSolver = field(default_factory=lambda: Auto(tol=1e-10, max_iter=1000))
    tol: float | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        require_int(self, "order", least=1)
        require_instance(self, "linsolve", LinearSolver)
        if self.tol is not None:
            require_real(self, "tol", least=0)

    def at(self, inner: Inner, params: Any, hparams: Any, *, inner_step: int = 0) -> Expansion:
        """Expand around a solution.

        Args:
            inner: an inner problem, a loss g(w, λ), shape (), or `Root(φ)`, with φ shaped as w.
            params: w₀ = w*(λ₀), in the structure that the inner problem or function expects; not changed.
            hparams: λ₀; not changed.
            inner_step: the step whose batch is used.

        Returns:
            The expansion.

        Also raised, by what it calls: NotOptimalError if φ(w₀, λ₀) is not zero.
        """
        optimum = Optimum.at(inner, params, hparams, linsolve=self.linsolve, tol=self.tol, inner_step=inner_step)
        return Expansion(optimum, self.order, self.compile)
