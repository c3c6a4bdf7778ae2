"""Buffers of the model."""

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.effect.base import Effect, Site


@dataclass(frozen=True, kw_only=True)
class Buffer(Effect):
    """λ replaces a buffer of the model, which is part of the model and not trained; it starts at the buffer's value.

    Examples are the mixing weights of operations, a temperature, or the slope of a rectifier. The dev loss depends on
    the buffer directly too, so that the hypergradient has a direct term.

    Attributes:
        name: of the buffer, as in `model.named_buffers()`.
        constraint: of λ.

    Source: Liu, Simonyan & Yang, "DARTS: differentiable architecture search", ICLR (2019), for mixing weights.
    """

    name: str
    constraint: Constraint = constraints.real

    def space(self, site: Site) -> Hyperparameter:
        found = site.buffers.get(self.name)
        if found is None or not found.is_floating_point():
            choice = [name for name, buffer in site.buffers.items() if buffer.is_floating_point()]
            raise ValueError(
                f"Buffer.name must name a floating-point buffer of the model, but it is {self.name!r}, and the "
                f"model has {', '.join(choice) or 'none; use register_buffer'}."
            )
        return Hyperparameter(found, constraint=self.constraint)

    def buffers(self, value: Tensor) -> Tensors:
        return {self.name: value}
