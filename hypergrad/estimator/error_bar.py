"""How wrong an implicit hypergradient is."""

import math
from dataclasses import dataclass, replace

import torch

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.linearization import Linearization
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolver
from hypergrad.linsolve.cg import CG
from hypergrad.problem.base import InnerProblem
from hypergrad.product.base import Product

_TOL = 1e-4
_SAFETY = 3.0
_QUADRATIC_REGIME = 0.3
_SHORT = 1e-6
_LEAST_BUDGET = 100


@dataclass(frozen=True)
class ErrorBar:
    """An estimate of ‖estimate − dF/dλ‖.

    Attributes:
        estimate: in the units of the hypergradient; NaN when unknown.
        status: "estimated", or "unknown: …" with the assumption that failed.
        num_matvecs: Hessian products that it took.
    """

    estimate: float
    status: str
    num_matvecs: int

    @classmethod
    def unknown(cls, why: str, num_matvecs: int = 0) -> "ErrorBar":
        """No estimate, and why."""
        return cls(math.nan, f"unknown: {why}", num_matvecs)


def error_bar(
    problem: InnerProblem,
    here: Linearization,
    params: Tensors,
    adjoint: torch.Tensor,
    linsolve: LinearSolver,
    hparams: Tensors,
    batches: tuple[object, object],
    products: Product,
    num_matvecs: int,
) -> ErrorBar:
    """Three times the distance from a hypergradient to the same one after a Newton step of both of its unknowns.

    The hypergradient at (w, v) is ∂L/∂λ of L = f − vᵀφ, and the true one is where φ = 0 and ∂L/∂w = ∂f/∂w − Hv = 0.
    One step of Newton's method for the two, each system solved by CG to a relative residual of 1e-4 without damping,

        H(w) δ = −φ(w),    H(w + δ) ε = ∂f/∂w(w + δ) − H(w + δ) v,

    gives a hypergradient at (w + δ, v + ε) that is far closer to the truth, and so its distance from the first one is
    the first one's error. It holds for a strongly convex inner problem near its solution, and is unknown where CG meets
    negative curvature or does not converge, where the step does not at least bring ‖φ‖ down to 0.3 of itself, or where
    the problem is a restriction, such as that to the support of a sparse solution, that may not hold at the solution.

    Args:
        problem: what is tuned.
        here: the linearisation at w.
        params: w.
        adjoint: v, the (inexact) adjoint, shape (n,).
        linsolve: where it is a CG or Auto, its preconditioner is used here too.
        hparams: λ.
        batches: the inner and outer batch.
        products: how the linearisation one step ahead is formed.
        num_matvecs: products that the adjoint took; each of the two systems may take twice that, or 100.

    Returns:
        The estimate, which rounding bounds below by 1e-13 of the hypergradient in float64.
    """
    if not problem.is_minimisation:
        return ErrorBar.unknown("the optimality condition is not the gradient of the inner loss")
    if adjoint.numel() == 0:  # no parameter moves, and the direct term is exact
        objection = problem.objection(params, params, hparams, batches[0])
        return ErrorBar.unknown(objection) if objection else ErrorBar(0.0, "estimated", 0)
    budget = max(_LEAST_BUDGET, 2 * num_matvecs)
    cg = CG(tol=_TOL, max_iter=budget)
    if isinstance(linsolve, CG | Auto):
        cg = replace(linsolve, tol=_TOL, max_iter=budget)
    spent = 0
    try:
        inner = cg.solve(here.inner.product, here.inner.phi)
        spent += inner.num_matvecs
        ahead = unflatten(flatten(params) - inner.x, params)
        there = Linearization.at(problem, ahead, hparams, batches, products)
        objection = problem.objection(params, ahead, hparams, batches[0])
        if objection:
            return ErrorBar.unknown(objection, spent)
        outer = cg.solve(there.inner.product, there.df_dw - there.inner.product(adjoint))
        spent += outer.num_matvecs + 1
    except HypergradError as error:
        return ErrorBar.unknown(f"{type(error).__name__} in the Newton step", spent)
    if not (inner.converged and outer.converged):
        return ErrorBar.unknown(f"CG did not reach a residual of {_TOL:g} in {budget} products", spent)
    left = there.inner.evaluation.grad_norm / max(here.inner.evaluation.grad_norm, torch.finfo(adjoint.dtype).tiny)
    # A step too short to matter cannot have left the region where φ is linear: what it leaves of φ is rounding.
    is_short = torch.linalg.vector_norm(inner.x) <= _SHORT * torch.linalg.vector_norm(flatten(params))
    if left > _QUADRATIC_REGIME and not is_short:
        return ErrorBar.unknown(f"a Newton step leaves {left:.2g} of the inner gradient, too far to be local", spent)
    refined, first = _gradient(there, hparams, adjoint + outer.x), _gradient(here, hparams, adjoint)
    distance = torch.linalg.vector_norm(refined - first).item()
    floor = 500 * torch.finfo(first.dtype).eps * torch.linalg.vector_norm(first).item()
    return ErrorBar(_SAFETY * distance + floor, "estimated", spent)


def _gradient(at: Linearization, hparams: Tensors, adjoint: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(flatten(hparams))
    for term in (at.direct, at.indirect(adjoint)):
        total += flatten({name: torch.zeros_like(hparams[name]) if x is None else x for name, x in term.items()})
    return total.detach()
