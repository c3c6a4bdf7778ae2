"""Stochastic single-loop methods as an estimator: one joint move, and the direction of λ."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.errors import DivergenceError
from hypergrad.core.status import Status
from hypergrad.core.validation import require_instance
from hypergrad.estimator.base import HypergradEstimator, Hypergradient
from hypergrad.estimator.report import AdjointReport
from hypergrad.problem.base import InnerProblem
from hypergrad.single_loop.base import Method, Move
from hypergrad.single_loop.soba import SOBA
from hypergrad.single_loop.terms import Terms
from hypergrad.training.report import TrainingReport


@dataclass(frozen=True, kw_only=True)
class SingleLoop(HypergradEstimator):
    """One joint move of the parameters and the adjoint on mini-batches, instead of a training and an adjoint solve.

    `grad` is the method's direction for λ at the point before the move: unbiased, or nearly, once w and v follow λ, and
    not the hypergradient at every step. The errors of w and v are in the stats as `inner_grad_norm` = ‖D_w‖ and
    `adjoint_residual` = ‖D_v‖ / ‖∂f/∂w‖, of the batches of the step. The `carry` is the memory of the method. It
    requires warm starts.

    Attributes:
        method: how w and the adjoint move, and which direction λ gets.
    """

    method: Method = field(default_factory=SOBA)
    inner_steps: int = field(init=False)

    def __post_init__(self) -> None:
        require_instance(self, "method", Method)
        object.__setattr__(self, "inner_steps", self.method.num_batches)

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
        """As promised by `HypergradEstimator`, from one move.

        Also raised, by what it calls: DivergenceError if a loss or direction is not finite.
        """
        t, move = self._move(problem, hparams, params, outer_step, inner_step, carry)
        _require_finite(move, t)
        norms = [float(torch.linalg.vector_norm(x)) for x in (move.inner_direction, move.outer_gradient)]
        adjoint = None
        if move.adjoint_direction is not None:
            residual = float(torch.linalg.vector_norm(move.adjoint_direction)) / norms[1] if norms[1] > 0 else math.nan
            adjoint = AdjointReport(self.method.num_matvecs, residual, Status.NOT_REQUIRED)
        return Hypergradient(
            dict(unflatten(move.direction, hparams)),
            move.params,
            float(move.outer_loss),
            training=TrainingReport(float(move.inner_loss), norms[0], self.method.num_batches, Status.NOT_REQUIRED),
            adjoint_system=adjoint,
            carry={"t": t + 1, "memory": move.memory},
        )

    def unrecorded(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        outer_step: int = 0,
        inner_step: int = 0,
        carry: Any = None,
    ) -> Hypergradient:
        """As promised by `HypergradEstimator`: the move alone, for which the host waits for nothing."""
        t, move = self._move(problem, hparams, params, outer_step, inner_step, carry)
        is_joint = move.adjoint_direction is not None
        return Hypergradient(
            dict(unflatten(move.direction, hparams)),
            move.params,
            math.nan,
            training=TrainingReport(math.nan, math.nan, self.method.num_batches, Status.NOT_REQUIRED),
            adjoint_system=AdjointReport(self.method.num_matvecs, math.nan, Status.NOT_REQUIRED) if is_joint else None,
            carry={"t": t + 1, "memory": move.memory},
        )

    def _move(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        outer_step: int,
        inner_step: int,
        carry: Any,
    ) -> tuple[int, Move]:
        """The number of the move, and the move."""
        terms = Terms(problem, inner_step, outer_step)
        if carry is None:
            self.method.require(problem)
            t, memory = 0, self.method.begin(terms, params, hparams)
        else:
            t, memory = carry["t"], carry["memory"]
        return t, self.method.move(terms, params, hparams, memory, t)


def _require_finite(move: Move, t: int) -> None:
    """Require that a move did not lead to NaN or infinity.

    Raises:
        DivergenceError: if it did.
    """
    numbers = torch.stack([move.inner_loss, move.outer_loss, move.direction.sum(), flatten(move.params).sum()])
    if not numbers.isfinite().all():
        raise DivergenceError(
            f"Move {t} of a single-loop method led to an inner loss of {float(move.inner_loss):.3g} and an outer loss "
            f"of {float(move.outer_loss):.3g}; lower the lr of the method's solver, or that of the outer optimiser."
        )
