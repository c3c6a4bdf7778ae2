"""Estimates of eigenvalues from a few products."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from hypergrad.errors import NonFiniteError
from hypergrad.linsolve.base import Matvec, bad_product


def largest_eigenvalue(matvec: Matvec, like: Tensor, *, num_iter: int = 20) -> float:
    """An estimate of |λ|_max of a symmetric A from below, by power iteration from a fixed random start.

    After k products the estimate is within a factor n^(1/(2k)) or so of the truth, which is ample for a step size.

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


def least_ritz_value(alphas: Sequence[float], betas: Sequence[float]) -> float | None:
    """The smallest Ritz value of A in the Krylov space of k steps of conjugate gradient, from their coefficients.

    It is at least λ_min(A), and comes close to it as CG converges: the Lanczos matrix of the space has the diagonal
    1/α_j + β_{j−1}/α_{j−1} and beside it √β_j/α_j.

    Args:
        alphas: the step lengths α_0, …, α_{k−1}, > 0.
        betas: β_0, …, β_{k−1}, of which the last is not used, ≥ 0.

    Returns:
        The Ritz value, > 0; None for k = 0.

    Source: Golub & Meurant, "Matrices, moments and quadrature with applications" (2010), section 4.
    """
    if not alphas:
        return None
    a, b = np.asarray(alphas), np.asarray(betas[:-1])
    diagonal = 1 / a
    diagonal[1:] += b / a[:-1]
    return float(eigh_tridiagonal(diagonal, np.sqrt(b) / a[:-1], eigvals_only=True, select="i", select_range=(0, 0))[0])
