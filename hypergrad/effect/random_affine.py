"""Random affine maps of the train images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import affine_grid

from hypergrad.core.device import sent
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.validation import require_instance
from hypergrad.effect.base import Effect, Site
from hypergrad.effect.bilinear import sampled

_LABELS = ("x from x", "x from y", "x shift", "y from x", "y from y", "y shift")
ENTRIES = len(_LABELS)
"""The number of entries of D: an affine map of the plane is a 2 × 3 matrix."""


@dataclass(frozen=True, kw_only=True)
class RandomAffine(Effect):
    """Random affine maps of the train images, x'(r) = x(r + D (r, 1)) with the six entries of D from N(0, λ²).

    r are positions from −1 to 1 across the image, so that λ = 0.1 moves a corner by about 0.17 of half the width. Each
    image gets a new map at each step. Outside its frame an image is zero.

    Attributes:
        init: the initial standard deviation, > 0.
        per_entry: one deviation for each entry of D, row by row, shape (6,), instead of one for all.

    Source: Simard, Steinkraus & Platt, "Best practices for convolutional neural networks applied to visual document
    analysis", ICDAR (2003).
    """

    init: float = 0.1
    per_entry: bool = False

    def __post_init__(self) -> None:
        require_instance(self, "per_entry", bool)

    def space(self, site: Site) -> Hyperparameter:
        require_images(self, site.tensor(self))
        if not self.per_entry:
            return Hyperparameter(self.init, constraint=constraints.positive)
        return Hyperparameter(self.init, shape=(ENTRIES,), constraint=constraints.positive, labels=_LABELS)

    def augmented(self, value: Tensor, X: Tensor, generator: torch.Generator) -> Tensor:
        return moved(X, value * normal(X, generator))


def require_images(effect: Effect, X: Tensor) -> None:
    """Require flat square grey images, shape (n, side²), or images of shape (n, channels, h, w).

    Raises:
        ValueError: if they are not.
    """
    if not X.is_floating_point() or not (X.ndim == 4 or X.ndim == 2 and math.isqrt(X.shape[1]) ** 2 == X.shape[1]):
        raise ValueError(
            f"{type(effect).__name__} needs images of shape (n, side²) or (n, channels, h, w), but the train inputs "
            f"have shape {tuple(X.shape)} and {X.dtype}; reshape and convert them, or leave this effect out."
        )


def normal(X: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, six for each image, shape (n, 6)."""
    return sent(torch.randn(len(X), ENTRIES, generator=generator, dtype=X.dtype), X.device)


def moved(X: Tensor, D: Tensor) -> Tensor:
    """The images x'(r) = x(r + D (r, 1)), between pixels by bilinear interpolation.

    Args:
        X: shape (n, side²) or (n, channels, h, w).
        D: shape (n, 6), row by row; the first row moves to the right, the second down.

    Returns:
        Images shaped as X, differentiable in D except where a position crosses the centre of a pixel.
    """
    side = math.isqrt(X.shape[1])
    images = X if X.ndim == 4 else X.view(-1, 1, side, side)
    identity = torch.eye(2, 3, dtype=X.dtype, device=X.device)
    grid = affine_grid(identity + D.view(-1, 2, 3), list(images.shape), align_corners=False)
    return sampled(images, grid).view_as(X)
