"""Methods with an adjoint that moves by steps of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.single_loop.base import Method
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.coefficient import Coefficient, Range, coefficient, root
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.solver.requirements import require_coefficient
from hypergrad.solver.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class AdjointMethod(Method):
    """A method with an adjoint v → −H⁻¹ ∇_w f, which minimises ½ vᵀ H v + vᵀ ∇_w f by gradient steps from 0.

    Attributes:
        solver: as in `Method`; None, the default, is gradient descent with the inner step of `step_sizes`.
        adjoint_lr: the step of v −= adjoint_lr D_v, > 0; None for the lr of gradient descent.
    """

    solver: InnerSolver | None = None
    adjoint_lr: float | Schedule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver is not None and self.solver.decays:
            raise ValueError(
                f"{type(self).__name__} needs a minimum of the inner loss, by whose Hessian v moves, but the "
                f"weight_decay of {type(self.solver).__name__} leads elsewhere. Set it to 0 instead of "
                f"{self.solver.coefficients()['weight_decay']!r}, and make the penalty a part of the inner loss."
            )
        if self.adjoint_lr is not None and isinstance(root(self.adjoint_lr), str):
            raise TypeError(
                f"{type(self).__name__}.adjoint_lr must be a number or a schedule over one, but it names "
                f"{root(self.adjoint_lr)!r}; the solution does not depend on it, so it cannot be tuned."
            )
        if self.adjoint_lr is not None:
            require_coefficient(self, "adjoint_lr", Range(above=0))
        elif self.solver is not None and not isinstance(self.solver, GradientDescent):
            raise ValueError(
                f"{type(self).__name__}.adjoint_lr must be given with {type(self.solver).__name__}, whose lr is no "
                "step along a gradient. Take less than 2 over the largest curvature of the inner loss."
            )

    def step_adjoint(self, v: Tensor, direction: Tensor, hparams: Tensors, t: int) -> Tensor:
        """v after a step along D_v with the step size of move t; both of shape (n,)."""
        lr: Coefficient = self.known_solver.coefficients()["lr"] if self.adjoint_lr is None else self.adjoint_lr
        return v - coefficient(lr, hparams, t) * direction


def start_adjoint(params: Tensors) -> Tensor:
    """v = 0, shape (n,)."""
    like = next(iter(params.values()))
    return torch.zeros(sum(w.numel() for w in params.values()), dtype=like.dtype, device=like.device)
