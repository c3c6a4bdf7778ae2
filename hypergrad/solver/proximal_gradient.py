"""Accelerated proximal gradient descent."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.sparse.l1 import L1Problem
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, Values, ranged


@dataclass(frozen=True, kw_only=True)
class ProximalGradient(InnerSolver):
    """Proximal gradient descent with acceleration (FISTA), for a problem with an L1 penalty, g = s + Σ_j l1_j |w_j|.

        w_{t+1} = prox(z_t − lr ∇s(z_t)),    z_{t+1} = w_{t+1} + (θ_t − 1)/θ_{t+1} (w_{t+1} − w_t),
        θ_{t+1} = (1 + √(1 + 4 θ_t²))/2,     z₀ = w₀, θ₀ = 1,

    where prox sets small entries to exactly zero. θ is reset to 1 if w_{t+1} − w_t points uphill, that is, if
    (z_t − w_{t+1})·(w_{t+1} − w_t) > 0. That makes convergence linear once the support is found, if s is strongly
    convex there. Converges for lr ≤ 1/L with L the largest eigenvalue of ∇²s.

    Attributes:
        lr: learning rate, > 0, or the name of the hyperparameter that holds it; None uses 1/L, with L from
            the problem's `smoothness`.

    Source: Beck & Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM
    Journal on Imaging Sciences (2009); O'Donoghue & Candès, "Adaptive restart for accelerated gradient schemes",
    Foundations of Computational Mathematics (2015).
    """

    lr: Coefficient | None = ranged(None, above=0)

    def init(self, params: Tensors) -> State:
        one = torch.ones_like(next(iter(params.values())).detach().reshape(-1)[0])
        return {"params": params, "ahead": params, "momentum": {"theta": one}}

    def step(self, oracle: Oracle, state: State, coefficients: Coefficients, t: int) -> State:
        problem, hparams = cast(L1Problem, oracle.problem), oracle.hparams
        z, w, theta = state["ahead"], state["params"], state["momentum"]["theta"]
        lr = coefficients.get("lr") or dict.fromkeys(w, 1 / cast(Tensor, problem.smoothness(hparams)))
        _, grad = problem.smooth_loss_and_gradient(z, hparams, oracle.batch)
        moved = {name: z[name] - lr[name] * grad[name] for name in z}
        new = {name: problem.prox(moved, hparams, lr[name])[name] for name in w}
        step = {name: new[name] - w[name] for name in w}
        overshoot = {name: z[name] - new[name] for name in w}
        theta = torch.where(flatten(overshoot) @ flatten(step) > 0, 1.0, theta)
        following = (1 + (1 + 4 * theta**2).sqrt()) / 2
        beta = (theta - 1) / following
        ahead = {name: new[name] + beta * step[name] for name in w}
        return {"params": new, "ahead": ahead, "momentum": {"theta": following}}

    def largest_lr(self, curvature: float, values: Values) -> float | None:
        return 4 / (3 * curvature)

    def require(self, problem: InnerProblem) -> None:
        name = type(problem).__name__
        if not isinstance(problem, L1Problem):
            raise ValueError(
                f"ProximalGradient trains an L1Problem, which separates the smooth part, but {name} is not one. "
                "Use GradientDescent or Momentum for a smooth inner loss, or write the problem as an L1Problem."
            )
        if self.lr is None and problem.smoothness(problem.init_hparams()) is None:
            raise ValueError(
                f"ProximalGradient.lr = None uses 1/L, but {name}.smoothness returns no L; give lr a number."
            )
