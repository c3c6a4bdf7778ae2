"""How large the parts of a move are, and whether they grow without end."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import flatten
from hypergrad.core.errors import DivergenceError
from hypergrad.single_loop.base import Move

_GROWTH = 1e6
"""By which losses, or D_v, grow in a run that explodes. A judgement: an unstable step reaches it long before overflow,
and a run that finds its way rarely grows at all."""


@dataclass(frozen=True)
class Sizes:
    """The losses and norms of a move, as numbers.

    Attributes:
        inner_loss: g.
        outer_loss: f.
        inner_direction: ‖D_w‖.
        outer_gradient: ‖∂f/∂w‖.
        adjoint_direction: ‖D_v‖; 0 if there is no adjoint.
        direction: ‖D_λ‖.
        params: ‖w‖ after the move.
    """

    inner_loss: float
    outer_loss: float
    inner_direction: float
    outer_gradient: float
    adjoint_direction: float
    direction: float
    params: float

    @classmethod
    def of(cls, move: Move, direction: Tensor) -> "Sizes":
        """Those of a move; the host waits for them once.

        Args:
            move: the move.
            direction: ‖D_λ‖, shape ().
        """
        zero = move.direction.new_zeros(1)
        adjoint = zero if move.adjoint_direction is None else move.adjoint_direction
        of_w, df_dw, of_v, w = (
            torch.linalg.vector_norm(x)
            for x in (move.inner_direction, move.outer_gradient, adjoint, flatten(move.params))
        )
        return cls(*torch.stack([move.inner_loss, move.outer_loss, of_w, df_dw, of_v, direction, w]).tolist())

    @property
    def adjoint_residual(self) -> float:
        """‖D_v‖ / ‖∂f/∂w‖; NaN if ∂f/∂w is 0."""
        return self.adjoint_direction / self.outer_gradient if self.outer_gradient > 0 else math.nan

    @property
    def scale(self) -> dict[str, float]:
        """What later moves are compared with."""
        losses = max(abs(self.inner_loss), abs(self.outer_loss))
        return {"losses": losses, "params": self.params, "outer_gradient": self.outer_gradient}


def require_bounded(sizes: Sizes, scale: dict[str, float], name: str, t: int) -> None:
    """Require that a move is finite, and not of a run that explodes.

    A run explodes if a loss is 10⁶ times as large as both were in the first move and ‖w‖ 10³ times, or D_v is 10⁶ times
    ∂f/∂w in both moves.

    Args:
        sizes: of the move.
        scale: of the first move that was looked at.
        name: of the method.
        t: the number of the move.

    Raises:
        DivergenceError: if it is not.
    """
    losses = f"an inner loss of {sizes.inner_loss:.3g} and an outer loss of {sizes.outer_loss:.3g}"
    if not all(math.isfinite(x) for x in vars(sizes).values()):
        raise DivergenceError(
            f"Move {t} of {name} is not finite: it met {losses}, and led to ‖w‖ = {sizes.params:.3g}."
        )
    largest = max(abs(sizes.inner_loss), abs(sizes.outer_loss))
    if largest > _GROWTH * scale["losses"] > 0 and sizes.params > _GROWTH**0.5 * scale["params"]:
        raise DivergenceError(
            f"Move {t} of {name} met {losses}, where both were at most {scale['losses']:.3g} in the first, and ‖w‖ "
            f"grew from {scale['params']:.3g} to {sizes.params:.3g}: the run explodes."
        )
    gradient = max(sizes.outer_gradient, scale["outer_gradient"])
    if sizes.adjoint_direction > _GROWTH * gradient > 0:
        raise DivergenceError(
            f"Move {t} of {name} met {losses}, and ‖D_v‖ = {sizes.adjoint_direction:.3g} beside ‖∂f/∂w‖ = "
            f"{sizes.outer_gradient:.3g}: the adjoint explodes."
        )
