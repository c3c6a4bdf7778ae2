"""A learned network that augments the train images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.validation import require_instance, require_real
from hypergrad.effect.base import Effect, Site
from hypergrad.effect.random_affine import ENTRIES, moved, normal, require_images


@dataclass(frozen=True, kw_only=True)
class AffineNetwork(Effect):
    """Random affine maps of the train images, from a distribution that a network computes for each image.

    x'(r) = x(r + D (r, 1))    with    D = init · (m + e^s ⊙ ε),    (m, s) = network(x),    ε ~ N(0, I),

    with positions r and draws ε as in `RandomAffine`. λ are the weights of the network, flat, shape (size,).

    Attributes:
        network: from flat images, shape (n, p), to outputs of shape (n, 12), m before s; it is not changed.
        init: the standard deviation of the entries of D at m = s = 0, > 0.

    Source: Lorraine, Vicol & Duvenaud, "Optimizing millions of hyperparameters by implicit differentiation", AISTATS
    (2020), for a network that augments; its affine maps are ours.
    """

    network: nn.Module
    init: float = 0.1

    def __post_init__(self) -> None:
        require_instance(self, "network", nn.Module)
        require_real(self, "init", above=0)

    def space(self, site: Site) -> Hyperparameter:
        require_images(self, site.tensor(self))
        X, first = site.tensor(self)[:2], flatten(self._params())
        shape = tuple(self._outputs(first.to(X), X).shape)
        if shape != (len(X), 2 * ENTRIES):
            raise ValueError(
                f"AffineNetwork.network must have outputs of shape (n, {2 * ENTRIES}), but for {len(X)} images "
                f"they have shape {shape}. Change its last layer."
            )
        return Hyperparameter(first)

    def augmented(self, value: Tensor, X: Tensor, generator: torch.Generator) -> Tensor:
        m, s = self._outputs(value, X).chunk(2, 1)
        return moved(X, self.init * (m + s.exp() * normal(X, generator)))

    def _outputs(self, value: Tensor, X: Tensor) -> Tensor:
        return functional_call(self.network, unflatten(value, self._params()), (X.flatten(1),))

    def _params(self) -> Tensors:
        return {name: p.detach() for name, p in self.network.named_parameters()}
