"""Hypergradients by differentiating through the training run."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, detach, leaves
from hypergrad.errors import DivergenceError
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, add_terms, require_finite_loss
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, require_differentiable
from hypergrad.solver.divergence import explain_divergence
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.solver.point import blew_up, look, require_finite
from hypergrad.validation import require_instance, require_int


@dataclass(frozen=True, kw_only=True)
class Unrolled(HypergradEstimator):
    """Reverse-mode differentiation of f(w_T(λ), λ) through the last K of T training steps.

    Exact for the run that was made, converged or not, when K = T; a shorter horizon K drops the influence of λ on the
    first T − K steps and keeps the graph of K steps only. Memory grows as K times the graph of one step.

    Attributes:
        solver: how the inner problem is trained; its coefficients can be hyperparameters.
        inner_steps: training steps T, ≥ 1.
        horizon: truncation horizon K, from 1 to T; None differentiates through all T steps.

    Source: Domke, "Generic methods for optimization-based modeling", AISTATS (2012); Shaban, Cheng, Hatch & Boots,
    "Truncated back-propagation for bilevel optimization", AISTATS (2019).
    """

    solver: InnerSolver = field(default_factory=GradientDescent)
    inner_steps: int = 100
    horizon: int | None = None

    def __post_init__(self) -> None:
        require_instance(self, "solver", InnerSolver)
        require_differentiable(self, self.solver)
        require_int(self, "inner_steps", least=1)
        if self.horizon is not None:
            require_int(self, "horizon", least=1)
            if self.horizon > self.inner_steps:
                raise ValueError(
                    f"Unrolled.horizon must be at most inner_steps = {self.inner_steps}, but it is {self.horizon}."
                )

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
        self.solver.require(problem)
        self.solver.validate(hparams, self.inner_steps, params)
        hp, start = leaves(hparams), detach(params)
        begin = look(problem, start, hparams, inner_step)
        require_finite(begin, hparams)
        horizon = self.inner_steps if self.horizon is None else self.horizon
        first, last = inner_step, inner_step + self.inner_steps
        state = self.solver.init(start)
        with torch.no_grad():
            for t in range(self.inner_steps - horizon):
                state = self.solver.step(problem, state, hp, t, first)
        with torch.enable_grad():
            for t in range(self.inner_steps - horizon, self.inner_steps):
                state = self.solver.step(problem, state, hp, t, first)
            w = self.solver.params(state)
            outer_loss = problem.outer_loss(w, hp, problem.outer_batch(outer_step))

        end = look(problem, detach(w), hparams, last)
        if blew_up(begin, end):
            raise DivergenceError(
                explain_divergence(problem, self.solver, hp, start, steps=self.inner_steps, first_step=first)
            )
        outer_value = require_finite_loss(outer_loss, problem)
        grads: tuple[Tensor | None, ...] = (None,) * len(hp)
        if outer_loss.requires_grad:
            grads = torch.autograd.grad(outer_loss, tuple(hp.values()), allow_unused=True)
        hint = f"it enters neither the last {horizon} training steps nor the outer loss."
        return Hypergradient(
            grad=add_terms(dict(zip(hp, grads, strict=True)), dict.fromkeys(hp), hint),
            params=detach(w),
            outer_loss=outer_value,
            stats={
                "inner_loss": end.loss,
                "inner_grad_norm": end.grad_norm,
                "inner_steps": self.inner_steps,
                "inner_status": "not_required",
                "num_matvecs": horizon,
            },
        )
