"""What the Krylov solvers share: cycles on the true residual, so that the residual they claim is there."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypergrad.core.errors import HypergradError, NonFiniteError
from hypergrad.core.operator import CannotApproximateError, Matvec, Operator
from hypergrad.core.status import Status
from hypergrad.core.validation import require_int, require_real
from hypergrad.linsolve.base import LinearSolution, LinearSolver, bad_product
from hypergrad.linsolve.lanczos import Spectrum

_WORTH_IT = 0.05
_LEAST = 0.5
"""An approximate operator is kept where a cycle with it brings the true residual down to ten times what the cycle
claims, or to the first of these; and at least to the second."""


@dataclass(frozen=True)
class Cycle:
    """What one cycle of iterations on A d = r came to.

    Attributes:
        d: the correction, shaped as r.
        residual: what the recursion believes ‖r − A d‖ to be; the largest of several.
        num_matvecs: products spent, one for each vector.
        is_least: whether no d seems to have a smaller residual, because A is singular and r not in its range.
        ends: the smallest and the largest Ritz value of M⁻¹A, where the iteration knows them.
    """

    d: Tensor
    residual: float
    num_matvecs: int
    is_least: bool = False
    ends: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Krylov(LinearSolver):
    """Iterations that each spend one product, judged by their recursive residual until it claims convergence.

    A recursive residual drifts away from the true one, so convergence is claimed only after one more product has shown
    it; where that product disagrees, the iteration starts again from the true residual. That is iterative refinement,
    and so the cycles may run on an approximate operator where A has one: what is claimed rests on A itself.

    Attributes:
        max_iter: most iterations, each of one product with A for each right-hand side, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
    """

    max_iter: int = 100
    tol: float = 1e-6

    def __post_init__(self) -> None:
        require_int(self, "max_iter", least=1)
        require_real(self, "tol", least=0)

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec | None, int]:
        """What every cycle shares: M⁻¹ where there is a preconditioner, and the products with A that it took."""
        return None, 0

    @abstractmethod
    def cycle(self, A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        """Iterate on A d = r from d = 0 until ‖r − A d‖ ≤ tol (absolute) or `max_iter` products; r may be changed."""

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        width = 1 if b.ndim == 1 else b.shape[1]
        if x0 is None:
            x, r, products = torch.zeros_like(b), b.clone(), 0
        else:
            x, products = x0.clone(), width
            r = b - A(x)
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
            spent, products = spent + done.num_matvecs, products + done.num_matvecs
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
            # A cycle that believed it was at its end, and whose end another cycle hardly moves, has met the limit of
            # rounding or of the range of A.
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
            except HypergradError as error:  # of the approximation, maybe, and not of A: A will tell
                remark = f"{near.name} met {type(error).__name__}, so went on with the exact product" if near else ""
        inverse, products = self.prepare(A, like)
        return _Steps(self, A, inverse, remark=remark), products


@dataclass
class _Steps:
    """The cycles of one solve: on the approximate operator as long as it is worth it, then on A."""

    solver: Krylov
    A: Operator
    inverse: Matvec | None
    near: Operator | None = None
    remark: str = ""
    spectrum: Spectrum = field(default_factory=Spectrum)

    def ended(self, x: Tensor, residual: float, products: int, status: Status) -> LinearSolution:
        """What the solve came to."""
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
        # What the approximate operator's precision can tell apart; half, so that the true residual falls below tol.
        tol = max(self.solver.tol / residual / 2, 100 * torch.finfo(self.near.dtype).eps)
        scaled = (r / residual).to(self.near.dtype)
        enough = 2 * r.numel()  # n iterations a column would do, but for rounding
        try:
            done = self.solver.cycle(self.near, self.inverse, scaled, tol, min(max_iter, enough))
        except HypergradError as error:
            self._drop(f"met {type(error).__name__}")
            return Cycle(torch.zeros_like(r), residual, 0)
        return replace(done, d=done.d.to(r.dtype) * residual, residual=done.residual * residual)

    def judge(self, before: float, claimed: float, residual: float) -> None:
        """Go on with A alone where the approximate operator did not keep what it claimed."""
        wanted = min(_LEAST * before, max(10 * claimed, _WORTH_IT * before))
        if self.near is not None and residual > max(self.solver.tol, wanted):
            self._drop(f"left a residual of {residual:.1e} where it claimed {claimed:.1e}")

    def _drop(self, why: str) -> None:
        assert self.near is not None
        self.remark = f"{self.near.name} {why}, so went on with the exact product"
        dtype, inverse = self.near.dtype, self.inverse
        if inverse is not None:
            self.inverse = lambda v: inverse(v.to(dtype)).to(v.dtype)
        self.near, self.spectrum = None, Spectrum()  # that was of another operator, maybe


def norm(r: Tensor, products: int) -> float:
    """‖r‖ after `products` products, the largest of several.

    Raises:
        NonFiniteError: if it is NaN or infinite.
    """
    value = torch.linalg.vector_norm(r, dim=0).max().item() if r.ndim == 2 else torch.linalg.vector_norm(r).item()
    if not value < float("inf"):
        raise NonFiniteError(bad_product(products))
    return value
