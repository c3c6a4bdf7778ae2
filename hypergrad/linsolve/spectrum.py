"""Estimates of the ends of a spectrum from a few products."""

import torch
from torch import Tensor

from hypergrad.core.errors import NonFiniteError
from hypergrad.core.local_shard import standard_normal
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
    v = standard_normal(like, generator)
    norm = torch.linalg.vector_norm(v)
    for _ in range(num_iter):
        v = matvec(v / norm)
        norm = torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)
    estimate = norm.item()
    if not estimate < float("inf"):
        raise NonFiniteError(bad_product(num_iter))
    return estimate


def extreme_eigenvalues(matvec: Matvec, like: Tensor, *, num_iter: int = 20) -> tuple[float, float]:
    """The smallest and the largest Ritz value of a symmetric A, by Lanczos iterations from a fixed random start.

    Both lie within the spectrum. They are exact after as many products as A has distinct eigenvalues; before that, the
    largest is found first if A has many small eigenvalues. Three vectors are kept.

    Args:
        matvec: v ↦ A v.
        like: a vector of shape (n,) that gives dtype and device.
        num_iter: most products to spend, ≥ 1.

    Raises:
        NonFiniteError: if a product is NaN or infinite.

    Source: Lanczos, "An iteration method for the solution of the eigenvalue problem of linear differential and integral
    operators", J. Research of the National Bureau of Standards (1950).
    """
    generator = torch.Generator().manual_seed(0)
    v = standard_normal(like, generator)
    v, before, beta = v / torch.linalg.vector_norm(v), torch.zeros_like(v), 0.0
    diagonal: list[float] = []
    off: list[float] = []
    for k in range(min(num_iter, like.numel())):
        product = matvec(v)
        alpha = (product @ v).item()
        if not abs(alpha) < float("inf"):
            raise NonFiniteError(bad_product(k + 1))
        rest = product - alpha * v - beta * before
        beta = torch.linalg.vector_norm(rest).item()
        diagonal.append(alpha)
        off.append(beta)
        if beta <= torch.finfo(v.dtype).eps ** 0.5 * max(map(abs, diagonal)):
            break
        before, v = v, rest / beta
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    T += sum(torch.diag(torch.tensor(off[:-1], dtype=torch.float64), side) for side in (-1, 1))
    ends = torch.linalg.eigvalsh(T)
    return ends[0].item(), ends[-1].item()
