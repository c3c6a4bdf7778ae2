"""Gradient descent with heavy-ball momentum."""

from dataclasses import dataclass

import torch

from hypergrad.autodiff import Tensors
from hypergrad.solver.base import InnerSolver, State, coefficient, require_coefficient


@dataclass(frozen=True, kw_only=True)
class Momentum(InnerSolver):
    """Heavy-ball momentum, v_{t+1} = β v_t + ∇g(w_t), w_{t+1} = w_t − lr v_{t+1}, from v₀ = 0.

    The same update as `torch.optim.SGD(momentum=β)`; stable on a quadratic for 0 ≤ β < 1 and lr < 2 (1 + β)/λ_max.

    Attributes:
        lr: learning rate, > 0, or the name of the hyperparameter that holds it.
        momentum: decay β, ≥ 0 and < 1, or the name of the hyperparameter that holds it.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods" (1964).
    """

    lr: float | str = 0.1
    momentum: float | str = 0.9

    def __post_init__(self) -> None:
        require_coefficient(self, "lr", above=0)
        require_coefficient(self, "momentum", least=0)
        if not isinstance(self.momentum, str) and self.momentum >= 1:
            raise ValueError(f"Momentum.momentum must be below 1, but it is {self.momentum:g}.")

    def init(self, params: Tensors) -> State:
        return {"params": params, "velocity": {name: torch.zeros_like(w) for name, w in params.items()}}

    def update(self, state: State, grad: Tensors, hparams: Tensors, t: int) -> State:
        lr, beta = coefficient(self.lr, hparams, t), coefficient(self.momentum, hparams, t)
        velocity = {name: beta * v + grad[name] for name, v in state["velocity"].items()}
        return {"params": {name: w - lr * velocity[name] for name, w in state["params"].items()}, "velocity": velocity}

    def coefficients(self) -> dict[str, float | str]:
        return {"lr": self.lr, "momentum": self.momentum}

    def largest_lr(self, curvature: float, hparams: Tensors, t: int) -> float | None:
        return 2 * (1 + float(coefficient(self.momentum, hparams, t))) / curvature
