"""The promise of a product: the optimality condition φ(w, λ), linearised at a point."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.operator import Operator
from hypergrad.problem.evaluation import InnerEvaluation
from hypergrad.problem.oracle import Oracle


@dataclass(frozen=True)
class Stationarity:
    """φ at (w, λ), linearised.

    Attributes:
        evaluation: inner loss and ‖φ‖.
        phi: φ, flat, shape (n,).
        product: v ↦ (∂φ/∂w)ᵀ v; the Hessian product where φ = ∇_w g.
        mixed: v ↦ (∂φ/∂λ)ᵀ v by name, None where φ does not depend on a hyperparameter.
    """

    evaluation: InnerEvaluation
    phi: Tensor
    product: Operator
    mixed: Callable[[Tensor], Mapping[str, Tensor | None]]


class Product(ABC):
    """How products with the derivatives of φ are formed."""

    @abstractmethod
    def linearize(self, oracle: Oracle, params: Tensors) -> Stationarity:
        """Linearize φ at `params`, which are not changed.

        Args:
            oracle: φ at fixed λ on one inner batch, the same in all products.
            params: w.

        Returns:
            φ with its products.

        Raises:
            NonFiniteError: if the inner loss or φ is NaN or infinite.
            ValueError: if φ is not what the products need; the message says what that is.
        """


def shapes_of(params: Tensors) -> tuple[tuple[int, ...], ...]:
    """The shapes of the tensors that `flatten(params)` holds one after the other."""
    return tuple(tuple(p.shape) for p in params.values())
