"""Hypergradients by the implicit function theorem."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.errors import IndefiniteError
from hypergrad.core.operator import Operator
from hypergrad.core.validation import (
    require_compile,
    require_instance,
    require_int,
    require_real,
    require_representable,
)
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, add_terms
from hypergrad.estimator.error_bar import error_bar
from hypergrad.estimator.implicit_plan import LEAST_BUDGET, plan_implicit
from hypergrad.estimator.kept_factors import KeptFactors, adjoint_in
from hypergrad.estimator.linearization import Linearization, require_dependence
from hypergrad.estimator.point import Point
from hypergrad.estimator.rank_plan import RankPlan
from hypergrad.estimator.rehearsal import Rehearsal
from hypergrad.estimator.report import AdjointReport
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolution, LinearSolver
from hypergrad.linsolve.cg import CG
from hypergrad.linsolve.dense import Dense
from hypergrad.linsolve.krylov import Krylov
from hypergrad.linsolve.neumann import Neumann
from hypergrad.linsolve.recording import Recording
from hypergrad.problem.base import InnerProblem, Restriction
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import require_parameters
from hypergrad.product.base import Product
from hypergrad.product.reverse import Reverse
from hypergrad.solver.base import InnerSolver, require_solver
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.training.training import Trained, Training

_SUMMABLE = {
    "exponential": lambda k: 0.9 ** (k - 1),
    "quadratic": lambda k: 1 / k**2,
    "cubic": lambda k: 1 / k**3,
}
"""Factors by outer step k = 1, 2, …, whose sum is finite."""
_HINT = (
    "it enters neither the gradient of the inner loss nor the outer loss. An implicit estimator cannot tune a "
    "coefficient of the solver, on which the solution does not depend; use Unrolled for that."
)


@dataclass(frozen=True, kw_only=True)
class Implicit(HypergradEstimator):
    """The implicit function theorem at the trained parameters: one adjoint solve for all hyperparameters.

    With φ(w, λ) = ∇_w g, zero at w*(λ): solve (∂φ/∂w)ᵀ v = ∂f/∂w, then dF/dλ = ∂f/∂λ − (∂φ/∂λ)ᵀ v. The error comes
    from φ ≠ 0 and from the residual of the solve; both are in `stats`. Coefficients of the solver cannot be tuned
    this way, because the solution does not depend on them. In a sparse solution only the nonzero entries move with λ,
    and the system is restricted to them. The `carry` is v, shape (n,), zero in the entries of w that do not move; with
    Kronecker factors that later outer steps may use, it is a dict of v and these.

    Attributes:
        solver: how the inner problem is trained.
        linsolve: how the adjoint system is solved.
        product: how products with the Hessian and the mixed derivatives are formed.
        inner_steps: most inner steps, ≥ 0. With 0 the given parameters count as trained; `inner_grad_norm` in the stats
            shows whether they are.
        inner_tol: training stops once ‖∇g(w)‖ ≤ inner_tol ‖∇g(w₀)‖ (dimensionless), ≥ 0.
        damping: δ ≥ 0, solves with ∂φ/∂w + δI instead, in units of the Hessian; biases the hypergradient.
        tighten: how both tolerances shrink over the outer steps k = 1, 2, …, so that their sum is finite and descent on
            the inexact hypergradient converges: "exponential" (0.9^(k−1)), "quadratic" (1/k²), "cubic" (1/k³), or None.
            A step counts as the best of a run only if its tolerance is at most twice that of the last step: the dev
            loss of loosely trained parameters says little about λ.
        error_bar: estimate ‖estimate − dF/dλ‖, which is `error_estimate` in the stats. If it is unknown it is NaN,
            and `error_status` gives the reason. It requires `error_matvecs` further Hessian products, fewer than the
            adjoint where a Krylov solver found it. In float32 both losses are also evaluated in float64, see
            docs/error_bar.md; where they cannot be, `error_remark` says so.
        compile: run the training steps through torch's Inductor, several at a time. It needs a C++ compiler, and some
            ten seconds once for a problem. "auto" does so once it pays, see docs/compile.md. `training_remark` in the
            stats says whether it was done, or why not.

    Examples:
        >>> problem = hg.Ridge(hg.diabetes())
        >>> estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-8))
        >>> found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        >>> print(f"dF/dλ = {found.grad['l2']:.4f} at a dev loss of {found.outer_loss:.4f}")
        dF/dλ = 0.0425 at a dev loss of 0.5052
        >>> found.stats["error_estimate"] < 1e-4
        True

    Source: Larsen, Hansen, Svarer & Ohlsson, "Design and regularization of neural networks: the optimal use of a
    validation set", NNSP (1996); Pedregosa, "Hyperparameter optimization with approximate gradient", ICML (2016).
    """

    solver: InnerSolver = field(default_factory=GradientDescent)
    linsolve: LinearSolver = field(default_factory=CG)
    product: Product = field(default_factory=Reverse)
    inner_steps: int = 1000
    inner_tol: float = 1e-6
    damping: float = 0.0
    tighten: str | None = None
    error_bar: bool = True
    compile: bool | str = False

    def __post_init__(self) -> None:
        require_solver(self)
        require_instance(self, "linsolve", LinearSolver)
        require_instance(self, "product", Product)
        require_int(self, "inner_steps", least=0)
        require_real(self, "inner_tol", least=0)
        require_compile(self)
        if self.solver.decays and self.inner_steps > 0:
            raise ValueError(
                f"Implicit needs a minimum of the inner loss, but the weight_decay of {type(self.solver).__name__} "
                f"leads elsewhere. Set it to 0 instead of {self.solver.coefficients()['weight_decay']!r}, and make the "
                "penalty a part of the inner loss."
            )
        require_real(self, "damping", least=0)
        if self.tighten is not None and self.tighten not in _SUMMABLE:
            raise ValueError(
                f"Implicit.tighten must be None or one of {', '.join(_SUMMABLE)}, but it is {self.tighten!r}."
            )

    @property
    def training(self) -> Training:
        return Training(solver=self.solver, steps=self.inner_steps, tol=self.inner_tol, compile=self.compile)

    def estimate(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        outer_step: int = 0,
        inner_step: int = 0,
        carry: Any = None,
    ) -> Hypergradient:
        require_by_differences(self, problem)
        like = next(iter(params.values()))
        require_parameters(like, type(problem).__name__)
        require_representable("Implicit.damping", self.damping, like.dtype)
        self.solver.require_used(problem)
        if problem.is_smooth and any(isinstance(value, str) for value in self.solver.coefficients().values()):
            before = Oracle(problem, hparams, problem.inner_batch(inner_step))
            require_dependence(Point(before, params, problem.outer_batch(outer_step), self.product), _HINT)
        self.solver.validate(hparams, self.inner_steps, params)
        training = replace(self.training, tol=self.inner_tol * self.looseness(outer_step))
        is_given = self.inner_steps == 0
        trained = Trained.given(params) if is_given else training.run(problem, hparams, params, inner_step)
        part, report = problem.restriction(trained.params, hparams), trained.report
        oracle = Oracle(part.problem, hparams, problem.inner_batch(inner_step + report.steps))
        here = Linearization.at(Point(oracle, part.params, problem.outer_batch(outer_step), self.product))
        linsolve = self.linsolve.tightened(self.looseness(outer_step))
        whole = len(here.df_dw) if isinstance(linsolve, Dense) else 0
        seen = Recording(whole=whole, is_krylov=isinstance(linsolve, Krylov | Auto))
        factors = KeptFactors.of(carry, outer_step)
        here = replace(here, inner=replace(here.inner, product=factors.watch(here.inner.product)))
        product = seen.watch(here.inner.product) if self.error_bar else here.inner.product
        solved = self._solve(linsolve, product, here.df_dw, _start(part, carry))
        return Hypergradient(
            add_terms(here.direct, here.indirect(solved.x), _HINT),
            detach(trained.params),
            here.outer_loss,
            training=replace(report, loss=here.inner.evaluation.loss, grad_norm=here.inner.evaluation.grad_norm),
            adjoint_system=_report(solved, part),
            error_bar=error_bar(here, solved.x, linsolve, seen, max(LEAST_BUDGET, 4 * solved.num_matvecs))
            if self.error_bar
            else None,
            carry=factors.carry(part.scatter(solved.x)),
        )

    def unrecorded(self, problem: InnerProblem, hparams: Tensors, params: Tensors, **where: Any) -> Hypergradient:
        """As promised by `HypergradEstimator`, without the error bar."""
        return replace(self, error_bar=False).estimate(problem, hparams, params, **where)

    def plan(
        self, problem: InnerProblem, hparams: Tensors | None = None, params: Tensors | None = None, *, world: int = 1
    ) -> RankPlan:
        """What one estimate from a cold start costs each of `world` ranks, from a few pieces of it that are tried here.

        The others need not be there. Products are counted as many as the linear solver allows; a tolerance usually
        ends it before. Steps are eager.

        Args:
            problem: what is tuned; it is shared by `DataParallel`, if it is not yet.
            hparams: λ in natural units; `problem.init_hparams()` if None.
            params: w; `problem.init_params()` if None.
            world: the number of ranks, ≥ 1.

        Returns:
            The costs of all parts; `print` shows them as a table.

        Also raised, by what it calls: TypeError or ValueError if `world` is no integer ≥ 1; NotImplementedError if the
        problem cannot be shared; NonFiniteError if a loss or gradient is NaN or infinite there.
        """
        rehearsal = Rehearsal.of(problem, hparams, params, world)
        return plan_implicit(rehearsal, self.training, self.linsolve, self.product, error_bar=self.error_bar)

    def _solve(self, linsolve: LinearSolver, product: Operator, b: Tensor, start: Tensor | None) -> LinearSolution:
        try:
            return linsolve.solve(product.shifted(self.damping), b, start)
        except IndefiniteError as error:
            if self.damping == 0:
                raise
            raise IndefiniteError(f"{error} That is in addition to the present damping of {self.damping:g}.") from None

    def looseness(self, outer_step: int) -> float:
        return 1.0 if self.tighten is None else _SUMMABLE[self.tighten](outer_step + 1)


def require_by_differences(estimator: "Implicit", problem: InnerProblem) -> None:
    """Require an estimator that serves a problem without second derivatives, if the problem has none.

    Raises:
        ValueError: if it does not.
    """
    if problem.has_second_derivatives:
        return
    name, linsolve = type(problem).__name__, estimator.linsolve
    if estimator.error_bar:
        raise ValueError(f"The error bar of Implicit needs second derivatives, which {name} has not: error_bar=False.")
    if estimator.compile:
        raise ValueError(f"Training steps of {name} are not compiled: leave compile out of Implicit.")
    if type(estimator.solver).update is InnerSolver.update:
        raise ValueError(
            f"{name} trains by solvers that are a rule for each entry of a gradient, but "
            f"{type(estimator.solver).__name__} is none. Use hg.GradientDescent, hg.Momentum or hg.Adam."
        )
    if not isinstance(linsolve, CG | Neumann) or isinstance(linsolve, CG) and linsolve.preconditioner is not None:
        what = "a preconditioner" if isinstance(linsolve, CG) else type(linsolve).__name__
        raise ValueError(
            f"{name} has no products but those by differences of sharded gradients, which hg.CG without a "
            f"preconditioner and hg.Neumann use, but linsolve has {what}. Use one of these two."
        )


def _start(part: Restriction, carry: Any) -> Tensor | None:
    """The start of the adjoint solve: the previous solution, if it has the same size; else None."""
    before = adjoint_in(carry)
    return part.gather(before) if before is not None and before.numel() == part.size else None


def _report(solved: LinearSolution, part: Restriction) -> AdjointReport:
    size = None if part.index is None else len(part.index)
    return AdjointReport(solved.num_matvecs, solved.residual, solved.status, solved.remark, solved.condition, size)
