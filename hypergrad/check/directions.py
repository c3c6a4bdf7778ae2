"""The point of a check, and the random directions along which derivatives are compared there."""

from collections.abc import Mapping
from functools import cached_property

import torch

from hypergrad.core.autodiff import Tensors, central_difference, detach, flatten, leaves, unflatten
from hypergrad.core.hyperparameter import Hyperparameter


class Directions:
    """Random unit directions d in the unconstrained values u at which the hyperparameters are λ.

    Args:
        spaces: the hyperparameters by name.
        hparams: λ in natural units.
        count: how many directions, ≥ 1; there are never more than λ has entries.
        seed: of the directions.

    Raises:
        ValueError: if λ has other names than `spaces`, or violates a constraint.
    """

    def __init__(self, spaces: Mapping[str, Hyperparameter], hparams: Tensors, *, count: int, seed: int) -> None:
        if hparams.keys() != spaces.keys():
            raise ValueError(f"hparams must hold {', '.join(spaces)}, but it holds {', '.join(hparams) or 'nothing'}.")
        self.spaces, self.hparams = spaces, detach(hparams)
        self.u = {name: spaces[name].to_unconstrained(value) for name, value in self.hparams.items()}
        for name, u in self.u.items():
            outside = int((~u.isfinite()).sum())
            if outside:
                raise ValueError(f"{outside} of {u.numel()} values of {name!r} lie outside {spaces[name].constraint}.")
        size = sum(value.numel() for value in self.u.values())
        self.units = [_unit(self.u, seed, index) for index in range(min(count, size))]

    def natural(self, u: Tensors) -> Tensors:
        """λ = transform(u)."""
        return {name: self.spaces[name].to_natural(value) for name, value in u.items()}

    @cached_property
    def stretches(self) -> list[float]:
        """‖(∂λ/∂u) d‖ for every direction."""
        step = torch.finfo(flatten(self.u).dtype).eps ** (1 / 3)
        return [
            central_difference(lambda u: flatten(self.natural(u)), self.u, unit, step).norm().item()
            for unit in self.units
        ]

    def derivatives(self, grad: Tensors) -> list[float]:
        """⟨dF/du, d⟩ for every direction, with dF/du = (∂λ/∂u)ᵀ dF/dλ."""
        with torch.enable_grad():
            u = leaves(self.u)
            hparams = self.natural(u)
            cotangents = tuple(grad[name] for name in hparams)
            pulled = torch.autograd.grad(tuple(hparams.values()), tuple(u.values()), cotangents)
        flat = flatten(dict(zip(u, pulled, strict=True)))
        return [torch.dot(flat, flatten(unit)).item() for unit in self.units]


def _unit(like: Tensors, seed: int, index: int) -> Tensors:
    """A random direction of norm 1, the same on every device and in every dtype except for rounding."""
    flat = flatten(like)
    generator = torch.Generator().manual_seed(seed + index)
    direction = torch.randn(len(flat), generator=generator, dtype=torch.float64)
    return unflatten((direction / direction.norm()).to(flat), like)
