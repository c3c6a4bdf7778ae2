"""The Taylor series of an optimum: its terms, what they predict, and how far."""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.errors import ExtrapolationWarning
from hypergrad.sensitivity.compiled import Terms, compiled_terms
from hypergrad.sensitivity.optimum import Optimum
from hypergrad.sensitivity.symmetric import Symmetric


@dataclass(frozen=True)
class Expansion:
    """The Taylor series of w* around an optimum; w comes in the structure in which it was given.

    Attributes:
        optimum: w₀ and λ₀.
        order: of the last term.
        compile: whether all terms are to be one compiled function.
    """

    optimum: Optimum
    order: int
    compile: bool = False

    def derivatives(self, direction: Any) -> list[Any]:
        """The derivatives d^k/dt^k w*(λ₀ + δ t) at t = 0, k = 1, …, order.

        Args:
            direction: δ, shaped as λ, or m of them, with one more axis in front.

        Returns:
            One w for each order, with the same axis in front.
        """
        terms = self.flat_terms(self.optimum.direction(direction))
        return [
            self.optimum.shaped(term if k == 1 else math.factorial(k) * term) for k, term in enumerate(terms, start=1)
        ]

    def tensor(self, order: int | None = None) -> Tensor:
        """The tensor of all derivatives of one order on flat vectors, D^k w*(λ₀), for small problems.

        Its entry (i, a₁, …, a_k) is ∂^k w*_i / ∂λ_{a₁} … ∂λ_{a_k}, the same for every order of the a. They are found
        from derivatives along as many directions as there are different ones, C(d + k − 1, k), in chunks of 64.

        Args:
            order: k, from 1 to that of the expansion, which None takes.

        Returns:
            Shape (n, d, …, d), with k axes of d, the number of entries of λ.

        Raises:
            ValueError: if k is another number, or there are more than 3000 different derivatives.
        """
        k = self.order if order is None else order
        if not 1 <= k <= self.order:
            raise ValueError(f"The order must be from 1 to {self.order}, that of the expansion, but it is {k}.")
        hparams = self.optimum.hparams
        symmetric = Symmetric.of(flatten(hparams), k)
        lower = Expansion(self.optimum, k, self.compile)
        pieces = [
            lower.flat_terms(self.optimum.unflattened(directions))[-1] for directions in symmetric.directions.split(64)
        ]
        return symmetric.tensor(math.factorial(k) * torch.cat(pieces))

    def terms(self, hparams: Any) -> list[Any]:
        """The terms w₁, …, w_K of the series at λ, or at m of them, with one more axis in front."""
        return [self.optimum.shaped(term) for term in self.flat_terms(self._step_to(hparams))]

    def predict(self, hparams: Any) -> Any:
        """w*(λ) to the order of the expansion, or at m of them, with one more axis in front.

        It warns where the terms suggest that the series does not converge at λ.
        """
        terms = self.flat_terms(self._step_to(hparams))
        radius = _radius(terms)
        if radius < 1:
            warnings.warn(
                f"λ is {1 / radius:.3g} times as far away as the radius within which the terms of the Taylor series "
                "suggest that it converges. Solve the inner problem there, or expand around a point on the way.",
                ExtrapolationWarning,
                stacklevel=2,
            )
        return self.optimum.shaped(flatten(self.optimum.params) + torch.stack(terms).sum(0))

    def radius(self, direction: Any) -> float:
        """How far along δ, in its own length, the series seems to converge: the least (‖w_m‖/‖w_k‖)^{1/(k−m)}.

        Here w_m is the first term that is not zero. Infinite at order 1, where there is nothing to tell it from.
        """
        return _radius(self.flat_terms(self.optimum.direction(direction)))

    def _step_to(self, hparams: Any) -> Tensors:
        return {name: x - self.optimum.hparams[name] for name, x in self.optimum.direction(hparams).items()}

    def flat_terms(self, direction: Tensors) -> list[Tensor]:
        """The terms w₁, …, w_K along δ by name, each of shape (n,) or (m, n)."""
        if not self.compile:
            return self.optimum.terms(direction, self.order)
        shapes = tuple(value.shape for value in direction.values())
        if shapes not in self._compiled:
            self._compiled[shapes] = compiled_terms(self.optimum, self.order, direction)
        return self._compiled[shapes](direction)

    @cached_property
    def _compiled(self) -> dict[Any, Terms]:
        return {}


def _radius(terms: list[Tensor]) -> float:
    sizes = torch.stack([torch.linalg.vector_norm(term.reshape(-1, term.shape[-1]), dim=1) for term in terms])
    radius = math.inf
    for column in sizes.T.tolist():
        first = next((m for m, size in enumerate(column) if size > 0), len(column))
        for k in range(first + 1, len(column)):
            if column[k] > 0:
                radius = min(radius, (column[first] / column[k]) ** (1 / (k - first)))
    return radius
