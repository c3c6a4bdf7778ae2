"""A linear solver that chooses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from hypergrad.linsolve.base import LinearSolution, LinearSolver, Preconditioner
from hypergrad.linsolve.cg import CG
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


@dataclass(frozen=True, kw_only=True)
class Auto(LinearSolver):
    """The solver for the system at hand, and in the solution's remark which one and why.

    GMRES where A is not symmetric; a Cholesky factorisation for up to 100 parameters, or up to 2000 where there are at
    least a tenth as many right-hand sides; else conjugate gradient, preconditioned by `Jacobi` per slice where two
    probes show that the curvature of the slices of the parameters differs more than 20-fold. The choice is a function
    of the system, never of a clock, so that a run can be repeated. An A that is not positive definite is refused as it
    is by `CG`: its solution would be no derivative of an argmin.

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
        if unevenness > _UNEVEN:
            preconditioner, comparison = _Diagonal(diagonal), "more"
        else:
            preconditioner, comparison = None, "no more"
        cg = CG(max_iter=self.max_iter, tol=self.tol, preconditioner=preconditioner)
        found = cg.solve_unit(A, b, x0)
        name = "CG" if preconditioner is None else "CG preconditioned by Jacobi"
        why = f"{name}, because the curvature differs {unevenness:.3g}-fold, {comparison} than {_UNEVEN:g}"
        return replace(_remarked(found, why), num_matvecs=found.num_matvecs + _PROBES)


@dataclass(frozen=True)
class _Diagonal(Preconditioner):
    """A preconditioner that is known already."""

    diagonal: Tensor

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec, int]:
        diagonal = self.diagonal.to(like.dtype)
        return lambda v: v / diagonal, 0


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
