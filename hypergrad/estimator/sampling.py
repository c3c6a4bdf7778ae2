"""The standard error of a hypergradient whose losses are means over random batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, jvp, leaves, unflatten
from hypergrad.estimator.linearization import Linearization
from hypergrad.estimator.point import Point
from hypergrad.estimator.report import SamplingReport
from hypergrad.linsolve.base import LinearSolver
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Product
from hypergrad.product.differences import CentredDifferences


@dataclass(frozen=True)
class BatchSpread:
    """How far the hypergradient would move with other batches, at the same w.

    The hypergradient G = f_λ − Mᵀ H⁻¹ f_w of the mean losses is a function of four means over B batches: f_λ, f_w,
    M = ∂φ/∂λ and H = ∂φ/∂w + δ I. To first order, batch b contributes to it

        s_b = ∂f_b/∂λ − M_bᵀ v − Uᵀ r_b,    r_b = ∂f_b/∂w − H_b v,    U = H⁻¹ M,

    whose mean is G, because Σ r_b = 0 for the adjoint v. So the standard error of G is that of the mean of the s_b,
    √(Σ_b (s_b − G)² / (B (B − 1))). What is left out is of order 1/B.

    Attributes:
        whole: the problem of the mean losses.
        each: the problem of each batch.
        hparams: λ.
        params: w.
        product: how products are formed.
        linsolve: solves the systems with H, one for each hyperparameter or for each batch, whichever are fewer.
        damping: δ.
    """

    whole: InnerProblem
    each: Sequence[InnerProblem]
    hparams: Tensors
    params: Tensors
    product: Product
    linsolve: LinearSolver
    damping: float

    def report(self, adjoint: Tensor) -> SamplingReport:
        """The standard errors, unknown (NaN) for a single batch."""
        count, d = len(self.each), flatten(self.hparams).numel()
        if count == 1:
            unknown = {name: torch.full_like(x, math.nan) for name, x in self.hparams.items()}
            return SamplingReport(math.nan, 1, unknown)
        fixed, residuals = [], []
        for problem in self.each:
            here = self._at(problem)
            fixed.append(self._sum(here.direct, here.indirect(adjoint)))
            residuals.append(here.df_dw - here.inner.product.shifted(self.damping)(adjoint))
        R = torch.stack(residuals)
        R = R - R.mean(0)
        by_columns = d <= count and not isinstance(self.product, CentredDifferences)
        s = torch.stack(fixed) + (self._by_columns(R) if by_columns else self._by_batches(R))
        error = s.std(0) / count**0.5
        return SamplingReport(torch.linalg.vector_norm(error).item(), count, unflatten(error, self.hparams))

    def _by_columns(self, R: Tensor) -> Tensor:
        """The −Uᵀ r_b in rows, by a system for each hyperparameter."""
        w, hp = leaves(self.params), leaves(self.hparams)
        with torch.enable_grad():
            phi = flatten(Oracle(self.whole, hp).optimality(w))
        rows = torch.eye(sum(x.numel() for x in hp.values()), dtype=phi.dtype, device=phi.device)
        pieces = zip(rows.split([x.numel() for x in hp.values()], dim=1), hp.values(), strict=True)
        M = jvp([phi], list(hp.values()), [piece.reshape(-1, *x.shape) for piece, x in pieces])[0][0].T
        return -R @ self._solve(M)

    def _by_batches(self, R: Tensor) -> Tensor:
        """The same by a system for each batch."""
        indirect = self._at(self.whole).indirect
        return torch.stack([self._sum(indirect(z)) for z in self._solve(R.T).T])

    def _solve(self, b: Tensor) -> Tensor:
        return self.linsolve.solve(self._at(self.whole).inner.product.shifted(self.damping), b).x

    def _at(self, problem: InnerProblem) -> Linearization:
        return Linearization.at(Point(Oracle(problem, self.hparams), self.params, None, self.product))

    def _sum(self, *terms: object) -> Tensor:
        """Named terms, None where there is none, as one flat vector."""
        total = torch.zeros_like(flatten(self.hparams))
        for term in terms:
            named = {k: torch.zeros_like(x) if term[k] is None else term[k] for k, x in self.hparams.items()}  # type: ignore[index]
            total = total + flatten(named)
        return total
