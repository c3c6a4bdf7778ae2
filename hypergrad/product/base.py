"""The promise of a product: the optimality condition φ(w, λ), linearised at a point.

Each file of this folder is one way to form the products (∂φ/∂w)ᵀ v and (∂φ/∂λ)ᵀ v, all that linear solvers and implicit
estimators use of φ. A product receives an `Oracle` of the inner loss. It may import problems, compiled programs and the
layers below them. It does not know training, linear solvers or estimators.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.kronecker import Kronecker, KroneckerSettings
from hypergrad.core.operator import CannotApproximateError, Operator
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.evaluation import InnerEvaluation
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.rounding import rounding


@dataclass(frozen=True)
class Stationarity:
    """φ at (w, λ), linearised.

    Attributes:
        evaluation: inner loss and ‖φ‖.
        phi: φ, flat, shape (n,).
        product: v ↦ (∂φ/∂w)ᵀ v; the Hessian product if φ = ∇_w g.
        mixed: v ↦ (∂φ/∂λ)ᵀ v by name; None if φ does not depend on a hyperparameter.
    """

    evaluation: InnerEvaluation
    phi: Tensor
    product: Operator
    mixed: Callable[[Tensor], Mapping[str, Tensor | None]]


class Product(ABC):
    """How products with the derivatives of φ are formed."""

    @property
    def reference(self) -> "Product":
        """The product that is exact to rounding, by which errors are judged; itself unless it leaves something out."""
        return self

    @abstractmethod
    def linearize(self, oracle: Oracle, params: Tensors) -> Stationarity:
        """φ and its products at `params`, which are not changed.

        Args:
            oracle: φ at fixed λ on one inner batch, the same in all products.
            params: w.

        Raises:
            NonFiniteError: if the inner loss or φ is NaN or infinite.
            ValueError: if φ does not fulfil a requirement of the products; the message names it.
        """


def require_minimisation(product: Product, problem: InnerProblem) -> None:
    """Require that φ is ∇_w g.

    Raises:
        ValueError: if the problem has its own condition.
    """
    if not problem.is_minimisation:
        raise ValueError(
            f"{type(product).__name__} needs an optimality condition that is the gradient of the inner loss, but "
            f"{type(problem).__name__} has one of its own. Use Reverse."
        )


def inaccuracy_of(problem: InnerProblem, loss: Tensor, dtype: torch.dtype) -> Callable[[], float] | None:
    """What measures the error of products with derivatives of the inner loss; None if that is rounding in `dtype`.

    Args:
        problem: whose inner loss it is.
        loss: its value, with its graph.
        dtype: of w.
    """
    if not loss.requires_grad:  # a condition of the problem's own
        return None
    eps = rounding(problem, "inner", loss)
    return None if eps <= torch.finfo(dtype).eps else lambda: eps


def shapes_of(params: Tensors) -> tuple[tuple[int, ...], ...]:
    """The shapes of the tensors in `flatten(params)`, in order."""
    return tuple(tuple(p.shape) for p in params.values())


def kronecker_of(oracle: Oracle, params: Tensors) -> Kronecker | None:
    """The Kronecker-factored curvature of the inner loss, from which a product can be preconditioned; None without."""
    problem = oracle.problem
    if not problem.is_minimisation:
        return None
    found = problem.kronecker(params, oracle.hparams, oracle.batch)
    if found is None or not problem.is_spread:
        return found

    def refuse(settings: KroneckerSettings | int) -> NoReturn:
        raise CannotApproximateError("several processes share the problem, and each would see its own examples only")

    return replace(found, factors=refuse, rows=refuse)
