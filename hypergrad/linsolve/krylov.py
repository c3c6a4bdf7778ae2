"""What the Krylov solvers share: cycles that restart from the true residual, so that the claimed residual is true."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from math import ceil, log2
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.errors import HypergradError, NonFiniteError
from hypergrad.core.operator import CannotApproximateError, Matvec, Operator
from hypergrad.core.status import Status
from hypergrad.core.validation import require_int, require_real
from hypergrad.linsolve.base import LinearSolution, LinearSolver, SolveCost, bad_product
from hypergrad.linsolve.lanczos import Spectrum

_WORTH_IT = 0.05
"""An approximate operator is kept if a cycle with it brings the true residual down to this fraction, or to ten times
what the cycle claims. A judgement."""
_LEAST = 0.5
"""And at least to this fraction, whatever the cycle claims. A judgement: a cycle that gains less is nearly lost."""


@dataclass(frozen=True)
class Cycle:
    """The result of one cycle of iterations on A d = r.

    Attributes:
        d: the correction, shaped as r.
        residual: ‖r − A d‖ according to the recursion; the largest of several.
        num_matvecs: products of the iterations, one for each vector.
        surplus: products of iterations after the one that ended the cycle, computed before the host looked.
        is_least: whether no d seems to have a smaller residual, because A is singular and r not in its range.
        ends: the smallest and the largest Ritz value of M⁻¹A, where the iteration knows them.
    """

    d: Tensor
    residual: float
    num_matvecs: int
    surplus: int = 0
    is_least: bool = False
    ends: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Krylov(LinearSolver):
    """A x = b by cycles of iterations, each iteration with one product.

    A cycle stops by its recursive residual, which drifts away from the true one. So one more product checks each claim
    of convergence; if it disagrees, a new cycle starts from the true residual. This is iterative refinement, so the
    cycles may run on an approximate operator where A has one: the claim is checked with A itself.

    Attributes:
        max_iter: most iterations, each with one product with A per right-hand side, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
    """

    max_iter: int = 100
    tol: float = 1e-6

    def __post_init__(self) -> None:
        require_int(self, "max_iter", least=1)
        require_real(self, "tol", least=0)

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec | None, int]:
        """What the cycles share: M⁻¹, or None without a preconditioner, and the products with A spent on it."""
        return None, 0

    vectors: ClassVar[int] = 4
    """Vectors of size n that a cycle keeps at a time."""

    def cost(self, n: int) -> SolveCost | None:
        # A cycle that claims to be done is checked by one product, and another begins if the residual halved at least.
        checks = 0 if self.tol == 0 else 1 + max(0, ceil(-log2(self.tol)))
        return SolveCost(self.max_iter + min(self.max_iter, checks), vectors=self.vectors)

    @abstractmethod
    def cycle(self, A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        """Iterate on A d = r from d = 0 until ‖r − A d‖ ≤ tol (absolute) or `max_iter` products; r may be changed."""

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        width = 1 if b.ndim == 1 else b.shape[1]
        x, r, products = first_residual(A, b, x0)
        residual, spent, budget = norm(r, products), 0, self.max_iter * width
        steps, extra = self._steps(A, b) if residual > self.tol else (_Steps(self, A, None), 0)
        products += extra
        while True:
            if residual <= self.tol:
                return steps.ended(x, residual, products, Status.CONVERGED)
            if spent == budget:
                return steps.ended(x, residual, products, Status.MAX_ITER)
            is_near = steps.near is not None
            done = steps.run(r, residual, budget - spent)
            x.add_(done.d)
            spent, products = spent + done.num_matvecs, products + done.num_matvecs + done.surplus
            if done.residual > self.tol and spent == budget and not is_near:
                return steps.ended(x, done.residual, products, Status.MAX_ITER)
            before, claimed = residual, done.residual <= self.tol
            r = b - A(x)
            products += width
            residual = norm(r, products)
            if is_near:
                steps.judge(before, done.residual, residual)
                if residual > before:
                    x.sub_(done.d)
                    r, residual, products = b - A(x), before, products + width
            # If a cycle claimed to be done and the true residual hardly fell, rounding or the range of A is the limit.
            elif residual > self.tol and residual > before * (0.5 if claimed or done.is_least else 1 - 1e-6):
                status = Status.INCONSISTENT if done.is_least else Status.STAGNATED
                return steps.ended(x, residual, products, status)

    def _steps(self, A: Operator, like: Tensor) -> tuple["_Steps", int]:
        like = like if like.ndim == 1 else like[:, 0]
        near, remark = None, ""
        if A.approximate is not None:
            try:
                near = replace(A.approximate(), is_rounded=True)
                inverse, products = self.prepare(near, like.to(near.dtype))
                return _Steps(self, A, inverse, near, f"iterated on {near.name}"), products
            except CannotApproximateError as error:
                remark = f"iterated on the exact product, because {error}"
            except HypergradError as error:  # maybe only of the approximation: the solve with A will show it
                remark = f"{near.name} met {type(error).__name__}, so went on with the exact product" if near else ""
        inverse, products = self.prepare(A, like)
        return _Steps(self, A, inverse, remark=remark), products


@dataclass
class _Steps:
    """The cycles of one solve: on the approximate operator while it helps, then on A."""

    solver: Krylov
    A: Operator
    inverse: Matvec | None
    near: Operator | None = None
    remark: str = ""
    spectrum: Spectrum = field(default_factory=Spectrum)

    def ended(self, x: Tensor, residual: float, products: int, status: Status) -> LinearSolution:
        """The solution of the whole solve."""
        return LinearSolution(x, residual, products, status, self.remark, self.spectrum.condition)

    def run(self, r: Tensor, residual: float, max_iter: int) -> Cycle:
        """One cycle on A d = r."""
        done = self._on_near(r, residual, max_iter)
        if done is None:
            done = self.solver.cycle(self.A, self.inverse, r, self.solver.tol, max_iter)
        self.spectrum.see(done.ends)
        return done

    def _on_near(self, r: Tensor, residual: float, max_iter: int) -> Cycle | None:
        """One cycle on the approximate operator; None where there is none."""
        if self.near is None:
            return None
        assert self.near.dtype is not None
        # Half, so that the true residual falls below tol, but no less than the precision of `near` resolves.
        tol = max(self.solver.tol / residual / 2, 100 * torch.finfo(self.near.dtype).eps)
        scaled = (r / residual).to(self.near.dtype)
        enough = 2 * r.numel()  # n iterations per column would be enough without rounding
        try:
            done = self.solver.cycle(self.near, self.inverse, scaled, tol, min(max_iter, enough))
        except HypergradError as error:
            self._drop(f"met {type(error).__name__}")
            return Cycle(torch.zeros_like(r), residual, 0)
        return replace(done, d=done.d.to(r.dtype) * residual, residual=done.residual * residual)

    def judge(self, before: float, claimed: float, residual: float) -> None:
        """Continue with A alone if the approximate operator did not reach the residual that it claimed."""
        wanted = min(_LEAST * before, max(10 * claimed, _WORTH_IT * before))
        if self.near is not None and residual > max(self.solver.tol, wanted):
            self._drop(f"left a residual of {residual:.1e} where it claimed {claimed:.1e}")

    def _drop(self, why: str) -> None:
        assert self.near is not None
        self.remark = f"{self.near.name} {why}, so went on with the exact product"
        dtype, inverse = self.near.dtype, self.inverse
        if inverse is not None:
            self.inverse = lambda v: inverse(v.to(dtype)).to(v.dtype)
        self.near, self.spectrum = None, Spectrum()  # the one so far may be of another operator


def first_residual(A: Operator, b: Tensor, x0: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """x, r = b − A x and the products spent, for x = x0, or x = 0 without one; both are new tensors."""
    if x0 is None:
        return torch.zeros_like(b), b.clone(), 0
    return x0.clone(), b - A(x0), 1 if b.ndim == 1 else b.shape[1]


def norm(r: Tensor, products: int) -> float:
    """‖r‖, the largest of several; `products` have been spent.

    Also raised, by what it calls: NonFiniteError if it is NaN or infinite.
    """
    size = torch.linalg.vector_norm(r, dim=0).max() if r.ndim == 2 else torch.linalg.vector_norm(r)
    return require_finite(size.item(), products)


def require_finite(size: float, products: int) -> float:
    """A norm after so many products.

    Raises:
        NonFiniteError: if it is NaN or infinite.
    """
    if not size < float("inf"):
        raise NonFiniteError(bad_product(products))
    return size
