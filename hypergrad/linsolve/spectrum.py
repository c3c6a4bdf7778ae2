"""An estimate of the largest eigenvalue from a few products."""

import torch
from torch import Tensor

from hypergrad.core.errors import NonFiniteError
from hypergrad.core.operator import Matvec
from hypergrad.linsolve.base import bad_product


def largest_eigenvalue(matvec: Matvec, like: Tensor, *, num_iter: int = 20) -> float:
    """An estimate of |λ|_max of a symmetric A from below, by power iteration from a fixed random start.

    After k products the estimate is within a factor of about n^(1/(2k)), which is enough for a step size.

    Args:
        matvec: v ↦ A v.
        like: a vector of shape (n,) that gives dtype and device.
        num_iter: products to spend, ≥ 1.

    Returns:
        ‖A v‖ for the last unit vector v; 0 when A = 0.

    Raises:
        NonFiniteError: if a product is NaN or infinite.
    """
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(like.numel(), generator=generator, dtype=torch.float64).to(like)
    norm = torch.linalg.vector_norm(v)
    for _ in range(num_iter):
        v = matvec(v / norm)
        norm = torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)
    estimate = norm.item()
    if not estimate < float("inf"):
        raise NonFiniteError(bad_product(num_iter))
    return estimate
