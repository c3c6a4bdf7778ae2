"""Hyperparameters as pictures."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SMALLEST_SIDE = 4
"""Pixels. A judgement: a smaller tensor is more likely a table of values than an image."""
_MOST_IMAGES = 64
"""A judgement: more in one figure are too small to see, and are written again at every outer step."""


def picture(value: Tensor, shape: Sequence[int] | None = None, *, logarithmic: bool = False) -> Tensor | None:
    """The images in a hyperparameter, as grey or colour values from 0 to 1.

    The smallest value is black and the largest white.

    Args:
        value: of shape (h, w), (c, h, w) or (k, c, h, w) with c = 1 or 3 and h and w at least 4, or any with `shape`.
        shape: the shape (h, w) or (c, h, w) of the images that the value holds one after another; None uses that of the
            value.
        logarithmic: show the logarithms of values that are all positive.

    Returns:
        The first 64 images, shape (k, c, h, w) in float32; None if the shape is not that of images.

    Raises:
        ValueError: if the value does not fit `shape`.
    """
    if shape is not None:
        size = math.prod(shape)
        if len(shape) not in (2, 3) or size == 0 or value.numel() % size:
            raise ValueError(
                f"Images have shape (h, w) or (c, h, w), and the values must fill whole images, but the shape is "
                f"{tuple(shape)} and there are {value.numel()} values."
            )
        value = value.reshape(-1, *([1] if len(shape) == 2 else []), *shape)
    elif value.ndim == 2:
        value = value[None, None]
    elif value.ndim == 3:
        value = value[None]
    if value.ndim != 4 or value.shape[1] not in (1, 3) or min(value.shape[2:]) < _SMALLEST_SIDE:
        return None
    value = value[:_MOST_IMAGES].double()
    if logarithmic:
        value = value.log()
    low, high = value.min(), value.max()
    return ((value - low) / (high - low).clamp_min(torch.finfo(value.dtype).tiny)).float()
