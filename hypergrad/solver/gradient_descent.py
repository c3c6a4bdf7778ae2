"""Gradient descent."""

from dataclasses import dataclass

from hypergrad.autodiff import Tensors
from hypergrad.solver.base import InnerSolver, State, coefficient, require_coefficient


@dataclass(frozen=True, kw_only=True)
class GradientDescent(InnerSolver):
    """Gradient descent, w_{t+1} = w_t − lr ∇g(w_t); stable on a quadratic for lr < 2/λ_max of its Hessian.

    Attributes:
        lr: learning rate, > 0, or the name of the hyperparameter that holds it.

    Source: Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées" (1847).
    """

    lr: float | str = 0.1

    def __post_init__(self) -> None:
        require_coefficient(self, "lr", above=0)

    def update(self, state: State, grad: Tensors, hparams: Tensors, t: int) -> State:
        lr = coefficient(self.lr, hparams, t)
        return {"params": {name: w - lr * grad[name] for name, w in state["params"].items()}}

    def coefficients(self) -> dict[str, float | str]:
        return {"lr": self.lr}

    def largest_lr(self, curvature: float, hparams: Tensors, t: int) -> float | None:
        return 2 / curvature
