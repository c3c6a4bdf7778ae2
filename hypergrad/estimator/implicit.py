"""Hypergradients by the implicit function theorem."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, detach, flatten, leaves, vjp
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, Stats, add_terms, require_finite_loss
from hypergrad.linsolve.base import LinearSolver, Matvec
from hypergrad.linsolve.cg import CG
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.solver.point import Point, require_finite
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
        inner_steps: most inner steps, ≥ 0; 0 takes the given parameters as trained, and `inner_grad_norm` in the stats
            says whether they are.
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
        params, inner_stats = self._train(problem, hparams, params, inner_step)
        w, hp = leaves(params), leaves(hparams)
        names, lam = tuple(hp), tuple(hp.values())
        with torch.enable_grad():
            outer_loss = problem.outer_loss(w, hp, problem.outer_batch(outer_step))
            outer_value = require_finite_loss(outer_loss)
            df_dw, direct = _outer_gradients(outer_loss, w, hp)
            batch = problem.inner_batch(inner_step + int(inner_stats["inner_steps"]))
            inner_loss, phi = _optimality(problem, w, hp, batch)
            point = Point.of(inner_loss, phi)
            require_finite(point, hparams)
            solved = self.linsolve.solve(self._damped(vjp(phi, w)), df_dw)
            mixed = torch.autograd.grad(flatten(phi), lam, -solved.x, allow_unused=True)
        hint = (
            "it enters neither the gradient of the inner loss nor the outer loss. An implicit estimator cannot tune a "
            "coefficient of the solver, on which the solution does not depend; use Unrolled for that."
        )
        return Hypergradient(
            grad=add_terms(direct, dict(zip(names, mixed, strict=True)), hint),
            params=detach(w),
            outer_loss=outer_value,
            stats={
                "inner_loss": point.loss,
                "inner_grad_norm": point.grad_norm,
                **inner_stats,
                "num_matvecs": solved.num_matvecs,
                "adjoint_residual": solved.residual,
                "adjoint_status": solved.status,
            },
        )

    def _train(
        self, problem: InnerProblem, hparams: Tensors, params: Tensors, inner_step: int
    ) -> tuple[Tensors, Stats]:
        self.solver.validate(hparams, self.inner_steps)
        if self.inner_steps == 0:
            return params, {"inner_steps": 0, "inner_status": "not_required"}
        trained = train(
            problem, self.solver, hparams, params, max_steps=self.inner_steps, first_step=inner_step, tol=self.inner_tol
        )
        return trained.params, {"inner_steps": trained.steps, "inner_status": trained.status}

    def _damped(self, matvec: Matvec) -> Matvec:
        if self.damping == 0:
            return matvec
        return lambda v: matvec(v).add(v, alpha=self.damping)


def _optimality(problem: InnerProblem, w: Tensors, hp: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
    """The inner loss and φ with its graph, from one forward pass where φ is the gradient of g."""
    if type(problem).optimality is InnerProblem.optimality:
        return problem.inner_loss_and_gradient(w, hp, batch)
    with torch.no_grad():
        loss = problem.inner_loss(w, hp, batch)
    return loss, problem.optimality(w, hp, batch)


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
