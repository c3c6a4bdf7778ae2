"""A linear solver that chooses among the others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hypergrad.core.errors import HypergradError, IndefiniteError
from hypergrad.core.operator import CannotApproximateError, Matvec, Operator
from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.linsolve.base import LinearSolution, LinearSolver, SolveCost
from hypergrad.linsolve.cg import CG, Prepared
from hypergrad.linsolve.dense import Dense
from hypergrad.linsolve.gmres import GMRES
from hypergrad.linsolve.jacobi import Jacobi
from hypergrad.linsolve.kfac import EKFAC
from hypergrad.linsolve.low_rank import LowRank
from hypergrad.linsolve.nystrom import Nystrom

_SMALL = 100
"""Parameters up to which A is factorised for one vector b. A judgement: CG would spend about as many products."""
_LARGEST_DENSE = 2000
"""Parameters up to which A is factorised for many right-hand sides. A judgement: 32 MB in float64, about a second."""
_COLUMNS = 10
"""Parameters per right-hand side at which factorising (n products) pays. A judgement: CG spends 10 products or more."""
_UNEVEN = 20.0
"""Ratio of curvatures above which Jacobi is tried. A judgement: it cuts 49 iterations to 8 where features' scales fall
30-fold (benchmarks/README.md, problem b)."""
_PROBES = 2
"""Products to estimate the diagonal. A judgement: the mean over a slice averages the noise away (see `Jacobi`)."""
_TRIAL = 5
"""Iterations that test Jacobi. A judgement: with the probes, 7 products are lost where it does not help."""
_HELPS = 0.1
"""Largest relative residual after these iterations at which Jacobi is kept. A judgement: a tenfold reduction."""
_RANK = 20
"""Products, taken in one batch, for the Nyström approximation: it halves the iterations of problem a (benchmarks)."""
_STEEP = 20.0
"""Fall of these eigenvalues above which Nyström is used. A judgement: the condition number falls as much."""


@dataclass(frozen=True, kw_only=True)
class Auto(LinearSolver):
    """A x = b by a solver that is chosen for the system; the solution's remark says which one and why.

    - GMRES where A is not symmetric.
    - A Cholesky factorisation for up to 100 parameters, or for up to 2000 with at least a tenth as many right-hand
      sides.
    - Else conjugate gradient. Up to 2000 parameters it is preconditioned by `Nystrom` of rank 20, if the eigenvalues
      found fall more than 20-fold. Otherwise it is preconditioned by `Jacobi` per slice, if two probes show that the
      curvature of the slices differs more than 20-fold and five iterations bring the residual down to 0.1. If they do
      not, plain iterations continue from there.

    The choice depends on the system and never on a clock, so a run can be repeated. Like `CG`, it refuses an A that is
    not positive definite: the solution would not be the derivative of an argmin.

    Attributes:
        max_iter: most iterations, each with one product with A per right-hand side, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
        kfac: above 2000 parameters, first try five iterations each of CG, and of CG preconditioned by `EKFAC` with the
            two dampings that it has by default. It goes on with the one that lowers xᵀAx/2 − bᵀx most; the weaker one
            must also leave a residual of at most 0.1. Off by default: it requires curvlinops, and numbers should not
            depend on what is installed.
    """

    takes_columns: ClassVar[bool] = True
    max_iter: int = 500
    tol: float = 1e-6
    kfac: bool = False

    def __post_init__(self) -> None:
        require_int(self, "max_iter", least=1)
        require_real(self, "tol", least=0)
        require_instance(self, "kfac", bool)

    def cost(self, n: int) -> SolveCost | None:
        """As promised, for a symmetric A: probes, a trial, and iterations."""
        if n <= _SMALL:
            return Dense(tol=self.tol).cost(n)
        iterations = CG(max_iter=self.max_iter, tol=self.tol).cost(n)
        tried = 3 * _TRIAL + 2 * _PROBES if self.kfac and n > _LARGEST_DENSE else 0
        prepared = SolveCost(
            _PROBES + tried, (_RANK,) if n <= _LARGEST_DENSE else (), _RANK if n <= _LARGEST_DENSE else 1
        )
        return None if iterations is None else prepared + iterations

    def inverse(self, matvec: Matvec, like: Tensor) -> Callable[[Tensor], LinearSolution]:
        A = Operator.of(matvec)
        if len(like) <= _LARGEST_DENSE:
            return Dense(definite=A.symmetric, tol=self.tol).inverse(A, like)
        return super().inverse(A, like)

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        n, columns = len(b), 1 if b.ndim == 1 else b.shape[1]
        if not A.symmetric:
            gmres = GMRES(max_iter=self.max_iter, tol=self.tol)
            return _remarked(gmres.solve(A, b, x0), "GMRES, because A is not symmetric")
        if n <= _SMALL or (n <= _LARGEST_DENSE and columns * _COLUMNS >= n):
            why = f"of {n} parameters" if columns == 1 else f"of {n} parameters for {columns} right-hand sides"
            return _remarked(Dense(tol=self.tol).solve_unit(A, b, x0), f"a factorisation {why}")
        A, near = _with_one_approximation(A)
        like = (b if b.ndim == 1 else b[:, 0]).to(near.dtype)
        cg, spent = CG(max_iter=self.max_iter, tol=self.tol), 0
        if n <= _LARGEST_DENSE:
            inverse, fall = _low_rank(near, like)
            spent = _RANK
            if inverse is not None and fall > _STEEP:
                found = replace(cg, preconditioner=Prepared(inverse)).solve_unit(A, b, x0)
                why = f"CG preconditioned by Nyström, whose {_RANK} eigenvalues fall {fall:,.0f}-fold"
                return _remarked(found, why, spent)
        elif self.kfac and b.ndim == 1 and x0 is None and self.max_iter > 3 * _TRIAL:
            found, spent = self._by_layers(cg, A, near, b)
            if found is not None:
                return found
        diagonal = Jacobi(num_probes=_PROBES, per="slice").diagonal(near, like)
        return self._by_diagonal(cg, _System(A, near, diagonal), b, x0, spent + _PROBES)

    def _by_layers(self, cg: CG, A: Operator, near: Operator, b: Tensor) -> tuple[LinearSolution | None, int]:
        """Conjugate gradient preconditioned by EK-FAC, or None where that does not help, and the products spent.

        From x = 0, conjugate gradient lowers xᵀAx/2 − bᵀx to −bᵀx/2, with any preconditioner. So bᵀx after as many
        products tells which is best.

        Also raised, by what it calls: ValueError if nothing is known of the layers of A.
        """
        like, spent, best = b.to(near.dtype or b.dtype), _TRIAL, None
        gain = torch.dot(b, _trial(near, lambda v: v, b)[0]).item()
        for how, preconditions in (("strongly", True), ("weakly", False)):
            inverse, extra = EKFAC(fisher="mc").made(near, like, preconditions=preconditions)
            x, left = _trial(near, inverse, b)
            spent += extra + _TRIAL
            reached = torch.dot(b, x).item()
            # Weak damping gains much at first if the largest eigenvalues are right, and loses if small ones are not.
            if reached > (gain if best is None else best[0]) and (preconditions or left <= _HELPS):
                best = reached, how, inverse, x
        if best is None:
            return None, spent
        reached, how, inverse, x = best
        why = f"{_TRIAL} iterations lowered the energy {reached / gain:.3g} times as much as without"
        made = Prepared(lambda v: inverse(v.to(like.dtype)).to(v.dtype))
        found = replace(cg, preconditioner=made, max_iter=self.max_iter - 3 * _TRIAL).solve_unit(A, b, x)
        return _remarked(found, f"CG preconditioned by {how} damped EK-FAC, because {why}", spent), spent

    def _by_diagonal(self, cg: CG, system: "_System", b: Tensor, x0: Tensor | None, spent: int) -> LinearSolution:
        """Conjugate gradient, preconditioned by the diagonal where that helps; `spent` products were spent before."""
        A, diagonal = system.A, system.diagonal
        unevenness = (diagonal.max() / diagonal.min()).item()
        if unevenness <= _UNEVEN:
            why = f"CG, because the curvature differs {unevenness:.3g}-fold, no more than {_UNEVEN:g}"
            return _remarked(cg.solve_unit(A, b, x0), why, spent)
        jacobi = replace(cg, preconditioner=Prepared(lambda v: v / diagonal.to(v.dtype)))
        if x0 is not None or b.ndim == 2 or self.max_iter <= _TRIAL:
            why = f"CG preconditioned by Jacobi, because the curvature differs {unevenness:.3g}-fold"
            return _remarked(jacobi.solve_unit(A, b, x0), why, spent)
        x0, left = _trial(system.near, lambda v: v / diagonal, b)
        name, than, chosen = ("CG", "more", cg) if left > _HELPS else ("CG preconditioned by Jacobi", "less", jacobi)
        why = f"{name}, because {_TRIAL} iterations with Jacobi left a residual of {left:.1e}, {than} than {_HELPS:g}"
        found = replace(chosen, max_iter=self.max_iter - _TRIAL).solve_unit(A, b, x0)
        return _remarked(found, why, spent + _TRIAL)


class _System(NamedTuple):
    """A, an approximation of it or A itself, and the estimated diagonal."""

    A: Operator
    near: Operator
    diagonal: Tensor


def _trial(near: Operator, inverse: Matvec, b: Tensor) -> tuple[Tensor, float]:
    """The iterate after a few preconditioned iterations, and its residual."""
    try:
        done = CG().cycle(near, inverse, b.to(near.dtype or b.dtype, copy=True), 0.0, _TRIAL)
    except HypergradError:  # maybe only of the approximation: the solve with A will show it
        return torch.zeros_like(b), math.inf
    return done.d.to(b.dtype), done.residual


def _low_rank(near: Operator, like: Tensor) -> tuple[LowRank | None, float]:
    """The preconditioner of `Nystrom`, or None, and the ratio of the largest to the smallest eigenvalue found."""
    try:
        inverse, _ = Nystrom(rank=_RANK).prepare(near, like)
    except IndefiniteError:  # maybe only of the approximation: the solve with A will show it
        return None, 1.0
    return inverse, 1 / (1 + inverse.shift.min().item())


def _with_one_approximation(A: Operator) -> tuple[Operator, Operator]:
    """A, with its approximation made only once, and that approximation; A twice where there is none."""
    if A.approximate is None:
        return A, A
    try:
        near = A.approximate()
    except CannotApproximateError:
        return A, A
    return replace(A, approximate=lambda: near), near


def _remarked(found: LinearSolution, choice: str, spent: int = 0) -> LinearSolution:
    """The solution with the choice in its remark, and with the products spent on choosing."""
    remark = f"{choice}; {found.remark}" if found.remark else choice
    return replace(found, remark=remark, num_matvecs=found.num_matvecs + spent)
