"""How wrong an implicit hypergradient is."""

from dataclasses import replace

import torch
from torch import Tensor

from hypergrad.core.autodiff import flatten, unflatten
from hypergrad.core.errors import HypergradError
from hypergrad.core.operator import Operator
from hypergrad.estimator.linearization import Linearization
from hypergrad.estimator.report import NO_GRADIENT, ErrorBar
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolution, LinearSolver
from hypergrad.linsolve.cg import CG

_TOL = 1e-4
"""It makes the bar uncertain by some 1e-4; an error bar needs no more digits: a judgement."""
_SAFETY = 3.0
"""With it the bar covers the error on 99 % of random problems, as tests/estimator/test_error_bar.py asserts."""
_QUADRATIC_REGIME = 0.3
"""Near a solution a Newton step squares a small ‖φ‖. A larger remaining part means it is not near: a judgement."""
_SHORT = 1e-6
"""A step this short, relative to ‖w‖, cannot have left the region where φ is linear: a judgement."""
_LEAST_BUDGET = 100
"""The least products allowed for each system, because a warm-started adjoint may have needed few: a judgement."""


def error_bar(here: Linearization, adjoint: Tensor, linsolve: LinearSolver, num_matvecs: int) -> ErrorBar:
    """Three times the distance that a hypergradient moves in one Newton step of both of its unknowns.

    The hypergradient at (w, v) is ∂L/∂λ of L = f − vᵀφ, and the true one is where φ = 0 and ∂L/∂w = ∂f/∂w − Hv = 0.
    One step of Newton's method for the two, each system solved by CG to a relative residual of 1e-4 without damping,

        H(w) δ = −φ(w),    H(w + δ) ε = ∂f/∂w(w + δ) − H(w + δ) v,

    gives a hypergradient at (w + δ, v + ε) that is far closer to the truth. So its distance from the first one
    estimates the error of the first one. This holds for a strongly convex inner problem near its solution. The error is
    unknown if CG meets negative curvature or does not converge, if the step does not reduce ‖φ‖ to 0.3 of itself or
    less, or if the problem is a restriction, such as to the support of a sparse solution, that may not hold there.

    Args:
        here: the linearisation at w.
        adjoint: v, the (inexact) adjoint, shape (n,).
        linsolve: if it is a CG or Auto, its preconditioner is used here too.
        num_matvecs: products that the adjoint needed; each of the two systems may use twice as many, or 100.

    Returns:
        The estimate; it is at least 1e-13 of the hypergradient in float64, to cover rounding.
    """
    if not here.point.oracle.problem.is_minimisation:
        return ErrorBar.unknown(NO_GRADIENT)
    if adjoint.numel() == 0:  # no parameter moves, and the direct term is exact
        objection = here.point.objection(here.point.params)
        return ErrorBar.unknown(objection) if objection else ErrorBar(0.0, "estimated", 0)
    step = _NewtonStep(here, adjoint, _conjugate_gradient(linsolve, max(_LEAST_BUDGET, 2 * num_matvecs)))
    try:
        objection = step.take()
    except HypergradError as error:
        objection = f"{type(error).__name__} in the Newton step"
    if objection:
        return ErrorBar.unknown(objection, step.spent)
    return ErrorBar(step.error(), "estimated", step.spent)


def _conjugate_gradient(linsolve: LinearSolver, max_iter: int) -> CG | Auto:
    if isinstance(linsolve, CG | Auto):
        return replace(linsolve, tol=_TOL, max_iter=max_iter)
    return CG(tol=_TOL, max_iter=max_iter)


class _NewtonStep:
    """A Newton step from (w, v) to (w + δ, v + ε), and the number of products used so far."""

    def __init__(self, here: Linearization, adjoint: Tensor, cg: CG | Auto) -> None:
        self.here, self.adjoint, self.cg, self.spent = here, adjoint, cg, 0

    def take(self) -> str:
        """Take the step; return why its length does not estimate the error, or "" if it does."""
        point = self.here.point
        inner = self._solve(self.here.inner.product, self.here.inner.phi)
        ahead = unflatten(flatten(point.params) - inner.x, point.params)
        self.there = there = Linearization.at(replace(point, params=ahead))
        objection = point.objection(ahead)
        if objection:
            return objection
        outer = self._solve(there.inner.product, there.df_dw - there.inner.product(self.adjoint))
        self.spent += 1
        self.refined = self.adjoint + outer.x
        if not (inner.converged and outer.converged):
            return f"CG did not reach a residual of {_TOL:g} in {self.cg.max_iter} products"
        return self._too_far(inner.x)

    def _too_far(self, delta: Tensor) -> str:
        first = max(self.here.inner.evaluation.grad_norm, torch.finfo(delta.dtype).tiny)
        left = self.there.inner.evaluation.grad_norm / first
        # If the step is too short to matter, what is left of φ is rounding.
        size = torch.linalg.vector_norm(flatten(self.here.point.params))
        if left > _QUADRATIC_REGIME and not torch.linalg.vector_norm(delta) <= _SHORT * size:
            return f"a Newton step leaves {left:.2g} of the inner gradient, too far to be local"
        return ""

    def error(self) -> float:
        """The distance between the hypergradients before and after the step, with a margin."""
        refined, first = _gradient(self.there, self.refined), _gradient(self.here, self.adjoint)
        distance = torch.linalg.vector_norm(refined - first).item()
        floor = 500 * torch.finfo(first.dtype).eps * torch.linalg.vector_norm(first).item()
        return _SAFETY * distance + floor

    def _solve(self, A: Operator, b: Tensor) -> LinearSolution:
        found = self.cg.solve(A, b)
        self.spent += found.num_matvecs
        return found


def _gradient(at: Linearization, adjoint: Tensor) -> Tensor:
    """The hypergradient, flat."""
    hparams = at.point.oracle.hparams
    total = torch.zeros_like(flatten(hparams))
    for term in (at.direct, at.indirect(adjoint)):
        total += flatten({name: torch.zeros_like(hparams[name]) if x is None else x for name, x in term.items()})
    return total.detach()
