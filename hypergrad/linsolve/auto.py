"""A linear solver that chooses."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.errors import HypergradError
from hypergrad.linsolve.base import LinearSolution, LinearSolver
from hypergrad.linsolve.cg import CG, Prepared
from hypergrad.linsolve.dense import Dense
from hypergrad.linsolve.gmres import GMRES
from hypergrad.linsolve.jacobi import Jacobi
from hypergrad.operator import CannotApproximateError, Matvec, Operator
from hypergrad.validation import require_int, require_real

_SMALL = 100
_LARGEST_DENSE = 2000
_COLUMNS = 10
_UNEVEN = 20.0
_PROBES = 2
_TRIAL = 5
_HELPS = 0.1


@dataclass(frozen=True, kw_only=True)
class Auto(LinearSolver):
    """The solver for the system at hand, and in the solution's remark which one and why.

    GMRES where A is not symmetric; a Cholesky factorisation for up to 100 parameters, or up to 2000 where there are at
    least a tenth as many right-hand sides; else conjugate gradient. It is preconditioned by `Jacobi` per slice where
    two probes show that the curvature of the slices of the parameters differs more than 20-fold, and five iterations
    with it bring the residual down to 0.1; where they do not, plain iterations go on from there. The choice is a
    function of the system, never of a clock, so that a run can be repeated. An A that is not positive definite is
    refused as it is by `CG`: its solution would be no derivative of an argmin.

    Attributes:
        max_iter: most iterations, each of one product with A for each right-hand side, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
    """

    takes_columns: ClassVar[bool] = True
    max_iter: int = 500
    tol: float = 1e-6

    def __post_init__(self) -> None:
        require_int(self, "max_iter", least=1)
        require_real(self, "tol", least=0)

    def inverse(self, matvec: Matvec, like: Tensor) -> Callable[[Tensor], LinearSolution]:
        A = Operator.of(matvec)
        if len(like) <= _LARGEST_DENSE:
            return Dense(definite=A.symmetric).inverse(A, like)
        return super().inverse(A, like)

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        n, columns = len(b), 1 if b.ndim == 1 else b.shape[1]
        if not A.symmetric:
            gmres = GMRES(max_iter=self.max_iter, tol=self.tol)
            return _remarked(gmres.solve(A, b, x0), "GMRES, because A is not symmetric")
        if n <= _SMALL or (n <= _LARGEST_DENSE and columns * _COLUMNS >= n):
            why = f"of {n} parameters" if columns == 1 else f"of {n} parameters for {columns} right-hand sides"
            return _remarked(Dense().solve_unit(A, b, x0), f"a factorisation {why}")
        A, near = _with_one_approximation(A)
        like = (b if b.ndim == 1 else b[:, 0]).to(near.dtype)
        diagonal = Jacobi(num_probes=_PROBES, per="slice").diagonal(near, like)
        unevenness = (diagonal.max() / diagonal.min()).item()
        cg, spent = CG(max_iter=self.max_iter, tol=self.tol), _PROBES
        if unevenness <= _UNEVEN:
            why = f"CG, because the curvature differs {unevenness:.3g}-fold, no more than {_UNEVEN:g}"
        elif x0 is None and b.ndim == 1 and self.max_iter > _TRIAL:
            x0, left = self._trial(near, diagonal, b)
            spent += _TRIAL
            helps = left <= _HELPS
            cg = replace(cg, max_iter=self.max_iter - _TRIAL, preconditioner=_divide_by(diagonal) if helps else None)
            name, than = ("CG preconditioned by Jacobi", "less") if helps else ("CG", "more")
            why = (
                f"{name}, because {_TRIAL} iterations with Jacobi left a residual of {left:.1e}, {than} than {_HELPS:g}"
            )
        else:
            cg = replace(cg, preconditioner=_divide_by(diagonal))
            why = f"CG preconditioned by Jacobi, because the curvature differs {unevenness:.3g}-fold"
        found = cg.solve_unit(A, b, x0)
        return replace(_remarked(found, why), num_matvecs=found.num_matvecs + spent)

    def _trial(self, near: Operator, diagonal: Tensor, b: Tensor) -> tuple[Tensor, float]:
        """A few preconditioned iterations: where they lead, and the residual that they leave."""
        try:
            done = CG().cycle(near, lambda v: v / diagonal, b.to(diagonal.dtype, copy=True), 0.0, _TRIAL)
        except HypergradError:  # of the approximation, maybe, and not of A: A will tell
            return torch.zeros_like(b), math.inf
        return done.d.to(b.dtype), done.residual


def _divide_by(diagonal: Tensor) -> Prepared:
    """The preconditioner of a diagonal, in the precision of what it is applied to."""
    return Prepared(lambda v: v / diagonal.to(v.dtype))


def _with_one_approximation(A: Operator) -> tuple[Operator, Operator]:
    """A, whose approximation is made once only, and that approximation, or A where there is none."""
    if A.approximate is None:
        return A, A
    try:
        near = A.approximate()
    except CannotApproximateError:
        return A, A
    return replace(A, approximate=lambda: near), near


def _remarked(found: LinearSolution, choice: str) -> LinearSolution:
    return replace(found, remark=f"{choice}; {found.remark}" if found.remark else choice)
