"""The promise of an effect: what a hyperparameter changes in supervised training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.data.tree import first_leaf, shapes


@dataclass(frozen=True)
class Site:
    """What an effect needs to know of a problem.

    Attributes:
        params: the trained parameters w₀ by name.
        X: the train inputs, shape (n, …), or tuples and dicts of such tensors; a few of them if they are streamed.
        num_classes: K if the targets are classes 0 to K − 1, else None.
        buffers: the buffers of the model by name, which are not trained.
        columns: the names of the columns of X, shape (n, p), if they are known.
        readers: the names of the parameters of layers whose inputs are these columns.
        count_examples: the number n of train examples, if X holds a few of them.
    """

    params: Tensors
    X: Any
    num_classes: int | None
    buffers: Tensors = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    readers: frozenset[str] = frozenset()
    count_examples: Callable[[], int] | None = None

    @property
    def num_examples(self) -> int:
        """The number n of train examples.

        Also raised, by what it calls: ValueError if it is not known.
        """
        return len(first_leaf(self.X)) if self.count_examples is None else self.count_examples()

    def classes(self, owner: object) -> int:
        """K, for the effects that need targets that are classes.

        Args:
            owner: the effect, for the error.

        Raises:
            ValueError: if the targets are none.
        """
        if self.num_classes is None:
            raise ValueError(
                f"{type(owner).__name__} needs targets that are classes, one integer for each example, but the train "
                "targets are none; convert them by y.long() and choose a loss for classes, such as "
                "torch.nn.functional.cross_entropy, or leave this effect out."
            )
        return self.num_classes

    def tensor(self, owner: object) -> Tensor:
        """X, for the effects that need one tensor.

        Args:
            owner: the effect, for the error.

        Raises:
            ValueError: if the inputs are several tensors.
        """
        if not isinstance(self.X, Tensor):
            raise ValueError(
                f"{type(owner).__name__} needs inputs that are one tensor, but they are {shapes(self.X)}; change the "
                "inputs in the model instead, by an hg.Buffer."
            )
        return self.X


class Effect(ABC):
    """A change by λ in g(w, λ) = 1/N Σ_i c_i u(z(w, x_i), y_i) + r(w), of one or more of w₀, z, x, y, c and r.

    u_i are the terms of the loss ℓ = 1/N Σ_i u_i, and N is its own denominator, such as n.

    Only `space` is required. Every other method is differentiable in λ, which it receives as `value`, of the shape that
    `space` gives it.
    """

    @abstractmethod
    def space(self, site: Site) -> Hyperparameter:
        """Initial value, shape and constraint of λ at a site.

        Raises:
            ValueError: if the effect does not fit there.
        """

    def initial(self, value: Tensor, params: Tensors) -> Tensors:
        """The parameters from which training starts instead of `params`, of the same shapes.

        See `InnerProblem.initial`.
        """
        return params

    def buffers(self, value: Tensor) -> Tensors:
        """The buffers of z that replace those of the model, by name, in training and in evaluation; of their shapes."""
        return {}

    def inputs(self, value: Tensor, X: Tensor) -> Tensor:
        """The inputs that the model sees instead of X, shape (n, …), in training and in evaluation."""
        return X

    def augmented(self, value: Tensor, X: Tensor, generator: torch.Generator) -> Tensor:
        """The inputs that a training step sees instead of X; evaluation does not use them.

        Args:
            value: λ.
            X: inputs of the step, shape (n, …).
            generator: for the random draws, on the CPU and seeded for the step.
        """
        return X

    def targets(self, value: Tensor, y: Tensor, num_classes: int | None) -> Tensor:
        """The targets of training instead of y, shape (n,), or (n, K) for one row of probabilities per example."""
        return y

    def weights(self, value: Tensor, rows: Tensor | None, y: Tensor) -> Tensor | None:
        """The weights c of the train examples `rows` (all when None), shape (len(rows),); None for weights of 1.

        `y` holds the targets of these examples, before `targets` changes them.
        """
        return None

    def widened(self, value: Tensor, num_more: int) -> Tensor:
        """λ for a train part with `num_more` further examples at its end, for effects that define `weights`.

        Shape (n + num_more,) if λ has an entry for each of n examples, else that of λ.
        """
        return value

    def penalty(self, value: Tensor, params: Tensors) -> Tensor | None:
        """The penalty r(w), shape ()."""
        return None
