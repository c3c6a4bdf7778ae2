"""The promise of an estimator: a hypergradient, and the numbers that say how far to trust it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor
from typing_extensions import TypeVar

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import NonFiniteError, UnusedHyperparameterError
from hypergrad.problem.base import InnerProblem, require_scalar
from hypergrad.solver.base import State
from hypergrad.training.training import Training

Stats = dict[str, float | int | str]
"""How an estimate came about.

- `inner_loss`, `inner_grad_norm`: g and ‖φ‖, by default ‖∇_w g‖, at the trained parameters.
- `inner_steps`, `inner_status`: steps of training, and "converged", "max_iter", "rising" (not converged, and the inner
  loss went up), "stagnated" (rounding errors allow no further step), or "not_required".
- `training_remark`: whether training was compiled, or why not; "" where that was not asked for.
- `truncation_bias`: see `hypergrad.estimator.tally`, for estimators with a horizon.
- `support_size`: entries of w that move with λ, for implicit estimators where some do not, as in a sparse solution;
  where it is 0, the indirect term is exactly zero.
- `num_matvecs`: Hessian products, by a linear solver or by the backward sweep through training.
- `adjoint_residual`, `adjoint_status`, `adjoint_remark`: of the linear system, for implicit estimators; the remark is
  what the linear solver chose and why, "" where there was nothing to choose.
- `adjoint_condition`: an estimate of the system's condition number κ from below, see `LinearSolution`; NaN where the
  linear solver does not know it.
- `error_estimate`, `error_status`, `error_matvecs`: see `hypergrad.estimator.error_bar`, for implicit estimators.
"""


H = TypeVar("H", default=Tensors)
P = TypeVar("P", default=Tensors)


@dataclass(frozen=True)
class Hypergradient(Generic[H, P]):
    """A hypergradient dF/dλ with what it stands on.

    Attributes:
        grad: dF/dλ in natural units, shaped as the hyperparameters: named tensors, or the structure that
            `hypergrad.hypergradient` was given.
        params: the trained parameters, detached.
        outer_loss: f at those parameters.
        stats: see `Stats`.
        adjoint: what the next estimate can start from besides the parameters: the solution v of the adjoint system,
            shape (n,), zero in the entries of w that do not move, for implicit estimators; the state, its age and its
            derivatives for online forward mode.
        start: dF/ds₀, the gradient with respect to the state where training started, for estimators that differentiate
            through all of the run in reverse. `start["params"]` is dF/dw₀, through all of s₀ that is made from w₀.
    """

    grad: H
    params: P
    outer_loss: float
    stats: Stats = field(default_factory=dict)
    adjoint: Tensor | None = None
    start: State | None = None


class HypergradEstimator(ABC):
    """How the hypergradient is formed: dF/dλ = ∂f/∂λ + (∂w*/∂λ)ᵀ ∂f/∂w, direct plus indirect term."""

    inner_steps: int

    @property
    def training(self) -> Training | None:
        """The training at λ that an estimate begins with; None by default, for an estimator that does not say it."""
        return None

    @abstractmethod
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
        """Train at `hparams` from `params` and estimate the hypergradient there.

        Args:
            problem: what is tuned.
            hparams: λ in natural units; not changed, no `.grad` is written.
            params: where training starts; not changed.
            outer_step: which outer batch judges, ≥ 0.
            inner_step: index of the first inner batch, ≥ 0.
            adjoint: that of the estimate before, to start from; not changed.

        Returns:
            The hypergradient and its statistics; "not converged" is a status in them.

        Raises:
            NonFiniteError: if a loss, gradient or product is NaN or infinite.
            DivergenceError: if training or a series of products blows up.
            IndefiniteError: if a linear solver that needs a positive definite Hessian meets another one.
            UnusedHyperparameterError: if the estimate could not depend on a hyperparameter.
            ValueError: if a solver's coefficient names no hyperparameter, or one of the wrong shape, or if the solver
                cannot train the problem.
        """


def require_finite_loss(outer_loss: Tensor, problem: InnerProblem) -> float:
    """The outer loss as a number.

    Raises:
        NonFiniteError: if it is NaN or infinite.
    """
    value = require_scalar(outer_loss, f"{type(problem).__name__}.outer_loss").item()
    if not abs(value) < float("inf"):
        raise NonFiniteError(
            f"The outer loss is {value} at the trained parameters; look for NaN in the dev data, or an operation that "
            "is not defined there."
        )
    return value


def add_terms(direct: Mapping[str, Tensor | None], indirect: Mapping[str, Tensor | None], hint: str) -> Tensors:
    """dF/dλ from its two terms, where None says that nothing in the term depends on the hyperparameter.

    Raises:
        UnusedHyperparameterError: if both terms of a hyperparameter are None.
        NonFiniteError: if the sum is not finite.
    """
    grad: Tensors = {}
    for name, direct_term in direct.items():
        terms = [term for term in (direct_term, indirect[name]) if term is not None]
        if not terms:
            raise UnusedHyperparameterError(f"Nothing depends on the hyperparameter {name!r}: {hint}")
        grad[name] = sum(terms[1:], start=terms[0]).detach()
        if not torch.linalg.vector_norm(grad[name], torch.inf).item() < torch.inf:
            raise NonFiniteError(
                f"The hypergradient with respect to {name!r} holds NaN or infinite values although the losses are "
                "finite; look for an operation whose derivative is infinite at these values."
            )
    return grad
