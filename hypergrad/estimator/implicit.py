"""Hypergradients by the implicit function theorem."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.errors import IndefiniteError
from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, Stats, add_terms
from hypergrad.estimator.error_bar import error_bar
from hypergrad.estimator.linearization import Linearization
from hypergrad.linsolve.base import LinearSolution, LinearSolver
from hypergrad.linsolve.cg import CG
from hypergrad.problem.base import InnerProblem
from hypergrad.product.base import Product
from hypergrad.product.reverse import Reverse
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.training.training import Training

_SUMMABLE = {
    "exponential": lambda k: 0.9 ** (k - 1),
    "quadratic": lambda k: 1 / k**2,
    "cubic": lambda k: 1 / k**3,
}
_HINT = (
    "it enters neither the gradient of the inner loss nor the outer loss. An implicit estimator cannot tune a "
    "coefficient of the solver, on which the solution does not depend; use Unrolled for that."
)


@dataclass(frozen=True, kw_only=True)
class Implicit(HypergradEstimator):
    """The implicit function theorem at the trained parameters: one adjoint solve for all hyperparameters.

    With φ(w, λ) = ∇_w g, zero at w*(λ): solve (∂φ/∂w)ᵀ v = ∂f/∂w, then dF/dλ = ∂f/∂λ − (∂φ/∂λ)ᵀ v. The error comes
    from φ ≠ 0 and from the residual of the solve; both are in `stats`. Coefficients of the solver cannot be tuned
    this way, because the solution does not depend on them. Of a sparse solution only the nonzero entries move with λ,
    and the system is that of its support.

    Attributes:
        solver: how the inner problem is trained.
        linsolve: how the adjoint system is solved.
        product: how products with the Hessian and the mixed derivatives are formed.
        inner_steps: most inner steps, ≥ 0; 0 takes the given parameters as trained, and `inner_grad_norm` in the stats
            says whether they are.
        inner_tol: training stops once ‖∇g(w)‖ ≤ inner_tol ‖∇g(w₀)‖ (dimensionless), ≥ 0.
        damping: δ ≥ 0, solves with ∂φ/∂w + δI instead, in units of the Hessian; biases the hypergradient.
        tighten: how both tolerances shrink over the outer steps k = 1, 2, …, so that their sum is finite and descent on
            the inexact hypergradient converges: "exponential" (0.9^(k−1)), "quadratic" (1/k²), "cubic" (1/k³), or None.
        error_bar: put an estimate of ‖estimate − dF/dλ‖ into `stats["error_estimate"]`, NaN with the reason in
            `error_status` where it is unknown; it takes `error_matvecs` further Hessian products, about as many as the
            adjoint.
        compile: run the training steps through torch.compile, several at a time, which takes some ten seconds once for
            a problem and a C++ compiler; `training_remark` in the stats says whether that was done, or why not.

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
    compile: bool = False

    def __post_init__(self) -> None:
        require_instance(self, "solver", InnerSolver)
        require_instance(self, "linsolve", LinearSolver)
        require_instance(self, "product", Product)
        require_int(self, "inner_steps", least=0)
        require_real(self, "inner_tol", least=0)
        require_instance(self, "compile", bool)
        if self.solver.decays and self.inner_steps > 0:
            raise ValueError(
                f"Implicit needs a minimum of the inner loss, but the weight_decay of {type(self.solver).__name__} "
                "leads elsewhere. Set it to 0, and make the penalty a part of the inner loss."
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
        adjoint: Tensor | None = None,
    ) -> Hypergradient:
        if problem.is_smooth and any(isinstance(value, str) for value in self.solver.coefficients().values()):
            batches = (problem.inner_batch(inner_step), problem.outer_batch(outer_step))
            self._require_dependence(problem, hparams, params, batches)
        params, inner_stats = self._train(problem, hparams, params, outer_step, inner_step)
        batches = (problem.inner_batch(inner_step + int(inner_stats["inner_steps"])), problem.outer_batch(outer_step))
        part = problem.restriction(params, hparams)
        here = Linearization.at(part.problem, part.params, hparams, batches, self.product)
        linsolve = self.linsolve.tightened(self._factor(outer_step))
        start = part.gather(adjoint) if adjoint is not None and adjoint.numel() == part.size else None
        solved = self._solve(linsolve, here, start)
        stats: Stats = {
            "inner_loss": here.inner.evaluation.loss,
            "inner_grad_norm": here.inner.evaluation.grad_norm,
            **inner_stats,
            "num_matvecs": solved.num_matvecs,
            "adjoint_residual": solved.residual,
            "adjoint_status": solved.status.value,
            "adjoint_remark": solved.remark,
            "adjoint_condition": solved.condition,
        }
        if part.index is not None:
            stats["support_size"] = len(part.index)
        grad = add_terms(here.direct, here.indirect(solved.x), _HINT)
        if self.error_bar:
            bar = error_bar(
                part.problem, here, part.params, solved.x, linsolve, hparams, batches, self.product, solved.num_matvecs
            )
            stats |= {"error_estimate": bar.estimate, "error_status": bar.status, "error_matvecs": bar.num_matvecs}
        return Hypergradient(
            grad=grad, params=detach(params), outer_loss=here.outer_loss, stats=stats, adjoint=part.scatter(solved.x)
        )

    def _require_dependence(
        self, problem: InnerProblem, hparams: Tensors, params: Tensors, batches: tuple[Any, Any]
    ) -> None:
        """Refuse a coefficient of the solver before training, which may end where the adjoint system has no solution.

        Raises:
            UnusedHyperparameterError: if neither the gradient of the inner loss nor the outer loss holds one.
        """  # noqa: DOC502
        here = Linearization.at(problem, params, hparams, batches, self.product)
        add_terms(here.direct, here.indirect(here.df_dw), _HINT)

    def _train(
        self, problem: InnerProblem, hparams: Tensors, params: Tensors, outer_step: int, inner_step: int
    ) -> tuple[Tensors, Stats]:
        self.solver.validate(hparams, self.inner_steps, params)
        if self.inner_steps == 0:
            return params, {"inner_steps": 0, "inner_status": "not_required", "training_remark": ""}
        trained = replace(self.training, tol=self.inner_tol * self._factor(outer_step)).run(
            problem, hparams, params, inner_step
        )
        return trained.params, {
            "inner_steps": trained.report.steps,
            "inner_status": trained.report.status.value,
            "training_remark": trained.report.remark,
        }

    def _solve(self, linsolve: LinearSolver, here: Linearization, start: Tensor | None) -> LinearSolution:
        try:
            return linsolve.solve(here.inner.product.shifted(self.damping), here.df_dw, start)
        except IndefiniteError as error:
            if self.damping == 0:
                raise
            raise IndefiniteError(f"{error} That is on top of the present damping of {self.damping:g}.") from None

    def _factor(self, outer_step: int) -> float:
        return 1.0 if self.tighten is None else _SUMMABLE[self.tighten](outer_step + 1)
