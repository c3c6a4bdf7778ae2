"""The first derivative of an optimum."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.structure import by_name
from hypergrad.core.validation import require_instance, require_real
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolver
from hypergrad.sensitivity.expansion import Expansion
from hypergrad.sensitivity.inner import Inner
from hypergrad.sensitivity.optimum import Optimum


@dataclass(frozen=True, kw_only=True)
class LinearResponse:
    """dw*/dλ = −(∂φ/∂w)⁻¹ ∂φ/∂λ: the Jacobian, its products from both sides, and the prediction at a new λ.

    Attributes:
        linsolve: solves the systems with ∂φ/∂w.
        tol: as in `TaylorExpansion`.

    Source: Giordano, Stephenson, Liu, Jordan & Broderick, "A Swiss Army infinitesimal jackknife", AISTATS (2019).
    """

    linsolve: LinearSolver = field(default_factory=lambda: Auto(tol=1e-10, max_iter=1000))
    tol: float | None = None

    def __post_init__(self) -> None:
        require_instance(self, "linsolve", LinearSolver)
        if self.tol is not None:
            require_real(self, "tol", least=0)

    def at(self, inner: Inner, params: Any, hparams: Any, *, inner_step: int = 0) -> "Response":
        """Linearise around a solution, of any shapes; see `TaylorExpansion.at`."""
        optimum = Optimum.at(inner, params, hparams, linsolve=self.linsolve, tol=self.tol, inner_step=inner_step)
        return Response(optimum)


@dataclass(frozen=True)
class Response:
    """dw*/dλ at an optimum.

    Attributes:
        optimum: w₀ and λ₀.
    """

    optimum: Optimum

    def jvp(self, direction: Any) -> Any:
        """(dw*/dλ) δ for a direction δ, or m of them along one more axis in front; one solve each."""
        return Expansion(self.optimum, 1).derivatives(direction)[0]

    def vjp(self, cotangent: Any) -> Any:
        """(dw*/dλ)ᵀ u for u shaped as w, by one solve for any number of hyperparameters.

        Raises:
            ValueError: if u has other shapes.
        """
        u, _ = by_name("cotangent", cotangent)
        params = self.optimum.params
        wanted, met = ([tuple(x.shape) for x in xs.values()] for xs in (params, u))
        if met != wanted:
            raise ValueError(f"A cotangent must have the shapes of the parameters, {wanted}, but it has {met}.")
        return self.optimum.to_hparams(self.named_vjp(flatten(u).to(flatten(params))))

    def jacobian(self) -> Tensor:
        """dw*/dλ on flat vectors, shape (n, d), by min(n, d) solves."""
        n, hparams = self.optimum.stationarity.phi.numel(), self.optimum.hparams
        flat = flatten(hparams)
        if n < flat.numel():
            return torch.cat([self.rows(name) for name in hparams], dim=1)
        eye = torch.eye(flat.numel(), dtype=flat.dtype, device=flat.device)
        return self.optimum.terms(self.optimum.unflattened(eye), 1)[0].T

    def rows(self, name: str) -> Tensor:
        """dw*/dλ for one hyperparameter of d entries, shape (n, d), by n adjoint solves."""
        phi = self.optimum.stationarity.phi
        eye = torch.eye(phi.numel(), dtype=phi.dtype, device=phi.device)
        adjoints = self.optimum.solve(eye, adjoint=True).T
        return -torch.stack([self._mixed(v)[name].reshape(-1) for v in adjoints])

    def predict(self, hparams: Any) -> Any:
        """w₀ + (dw*/dλ)(λ − λ₀), for one λ, or m of them along one more axis in front; the error is O(‖λ − λ₀‖²)."""
        return Expansion(self.optimum, 1).predict(hparams)

    def named_vjp(self, u: Tensor) -> Tensors:
        """(dw*/dλ)ᵀ u by name, for a flat u of shape (n,)."""
        return self._mixed(-self.optimum.solve(u, adjoint=True))

    def _mixed(self, v: Tensor) -> Tensors:
        pulled = self.optimum.stationarity.mixed(v)
        return {
            name: torch.zeros_like(x) if pulled[name] is None else pulled[name]  # type: ignore[misc]
            for name, x in self.optimum.hparams.items()
        }
