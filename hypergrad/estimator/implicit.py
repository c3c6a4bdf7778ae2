"""Hypergradients by the implicit function theorem."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, detach, flatten, leaves, unflatten, vjp
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, add_terms, require_finite_loss
from hypergrad.linsolve.base import LinearSolver, Matvec
from hypergrad.linsolve.cg import CG
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.solver.training import train
from hypergrad.validation import require_instance, require_int, require_real


@dataclass(frozen=True, kw_only=True)
class Implicit(HypergradEstimator):
    """The implicit function theorem at the trained parameters: one adjoint solve for all hyperparameters.

    With φ(w, λ) = ∇_w g, zero at w*(λ): solve (∂φ/∂w)ᵀ v = ∂f/∂w, then dF/dλ = ∂f/∂λ − (∂φ/∂λ)ᵀ v. The error comes
    from φ ≠ 0 and from the residual of the solve; both are in `stats`. Coefficients of the solver cannot be tuned
    this way, because the solution does not depend on them.

    Attributes:
        solver: how the inner problem is trained.
        linsolve: how the adjoint system is solved.
        inner_steps: most inner steps, ≥ 0; 0 takes the given parameters as trained.
        inner_tol: training stops once ‖∇g(w)‖ ≤ inner_tol ‖∇g(w₀)‖ (dimensionless), ≥ 0.
        damping: δ ≥ 0, solves with ∂φ/∂w + δI instead, in units of the Hessian; biases the hypergradient.

    Source: Larsen, Hansen, Svarer & Ohlsson, "Design and regularization of neural networks: the optimal use of a
    validation set", NNSP (1996); Pedregosa, "Hyperparameter optimization with approximate gradient", ICML (2016).
    """

    solver: InnerSolver = field(default_factory=GradientDescent)
    linsolve: LinearSolver = field(default_factory=CG)
    inner_steps: int = 1000
    inner_tol: float = 1e-6
    damping: float = 0.0

    def __post_init__(self) -> None:
        require_instance(self, "solver", InnerSolver)
        require_instance(self, "linsolve", LinearSolver)
        require_int(self, "inner_steps", least=0)
        require_real(self, "inner_tol", least=0)
        require_real(self, "damping", least=0)

    def estimate(
        self, problem: InnerProblem, hparams: Tensors, params: Tensors, *, outer_step: int = 0, inner_step: int = 0
    ) -> Hypergradient:
        self.solver.validate(hparams, self.inner_steps)
        trained = train(
            problem, self.solver, hparams, params, max_steps=self.inner_steps, first_step=inner_step, tol=self.inner_tol
        )
        w, hp = leaves(trained.params), leaves(hparams)
        names, lam = tuple(hp), tuple(hp.values())
        with torch.enable_grad():
            outer_loss = problem.outer_loss(w, hp, problem.outer_batch(outer_step))
            outer_value = require_finite_loss(outer_loss)
            df_dw, direct = _outer_gradients(outer_loss, w, hp)
            phi = problem.optimality(w, hp, problem.inner_batch(inner_step + trained.steps))
            solved = self.linsolve.solve(self._damped(vjp(phi, w)), df_dw)
            mixed = torch.autograd.grad(
                tuple(phi.values()), lam, tuple(unflatten(-solved.x, w).values()), allow_unused=True
            )
        hint = (
            "it enters neither the gradient of the inner loss nor the outer loss. An implicit estimator cannot tune a "
            "coefficient of the solver, on which the solution does not depend; use Unrolled for that."
        )
        return Hypergradient(
            grad=add_terms(direct, dict(zip(names, mixed, strict=True)), hint),
            params=detach(w),
            outer_loss=outer_value,
            stats={
                "inner_loss": trained.end.loss,
                "inner_grad_norm": trained.end.grad_norm,
                "inner_steps": trained.steps,
                "inner_status": trained.status,
                "num_matvecs": solved.num_matvecs,
                "adjoint_residual": solved.residual,
                "adjoint_status": solved.status,
            },
        )

    def _damped(self, matvec: Matvec) -> Matvec:
        if self.damping == 0:
            return matvec
        return lambda v: matvec(v).add(v, alpha=self.damping)


def _outer_gradients(outer_loss: Tensor, w: Tensors, hp: Tensors) -> tuple[Tensor, dict[str, Tensor | None]]:
    """∂f/∂w, flat, and ∂f/∂λ by name, None where f does not depend on it.

    Raises:
        ValueError: if the outer loss depends on no parameter.
    """
    grads = torch.autograd.grad(outer_loss, (*w.values(), *hp.values()), allow_unused=True)
    wrt_w, wrt_hp = grads[: len(w)], grads[len(w) :]
    if all(g is None for g in wrt_w):
        raise ValueError("The outer loss depends on none of the parameters, so there is nothing to tune through them.")
    filled = {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(w.items(), wrt_w, strict=True)}
    return flatten(filled), dict(zip(hp, wrt_hp, strict=True))
