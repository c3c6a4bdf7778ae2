"""Norms of vectors in any format, in float64."""

import math

import torch
from torch import Tensor

from hypergrad.core.length import length
from hypergrad.linsolve.window import read

_TINY = 1e-150
"""Below, squares are not normal numbers in float64."""


def root_mean_square(vectors: list[Tensor]) -> float:
    """The root mean square of the norms."""
    sizes = read([torch.linalg.vector_norm(x.double()) for x in vectors])
    sizes = sizes if min(sizes) > _TINY else [norm(x) for x in vectors]
    unit = 2.0 ** (math.frexp(max(sizes))[1] - 1)  # a power of two, by which division is exact
    return unit * math.sqrt(sum((size / unit) ** 2 for size in sizes) / len(sizes))


def norm(x: Tensor) -> float:
    """‖x‖."""
    return length(x.double())
