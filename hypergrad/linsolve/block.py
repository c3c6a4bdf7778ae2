"""Conjugate gradient on several right-hand sides at once."""

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import Matvec, Operator
from hypergrad.linsolve.base import bad_product, negative_curvature
from hypergrad.linsolve.krylov import Cycle
from hypergrad.linsolve.window import read


def block_cycle(A: Operator, inverse: Matvec | None, R: Tensor, tol: float, max_iter: int) -> Cycle:
    """Iterate on A D = R from D = 0 until each column of R − A D is ≤ tol (absolute), or `max_iter` products.

    Let R = Q φ with QᵀM⁻¹Q = I. Each iteration adds P (PᵀAP)⁻¹ φ to D and orthonormalises Q − A P (PᵀAP)⁻¹ to Q ζ;
    then P ← M⁻¹Q + P ζᵀ and φ ← ζ φ. Directions that are a combination of the others, to rounding, are dropped, which
    saves their products.

    Args:
        A: symmetric positive definite.
        inverse: v ↦ M⁻¹ v, or None for M = I.
        R: shape (n, k).
        tol: ≥ 0.
        max_iter: ≥ 1; the last block of products may exceed it.

    Returns:
        The correction D, shape (n, k).

    Also raised, by what it calls: NonFiniteError if a product is NaN or infinite; IndefiniteError if PᵀAP is met to be
    not positive definite.

    Source: O'Leary, "The block conjugate gradient algorithm and related methods", Linear Algebra Appl. (1980);
    Dubrulle, "Retooling the method of block conjugate gradients", ETNA (2001).
    """
    D = torch.zeros_like(R)
    Q, Z, phi = _orthonormal(R, inverse)
    P, count = Z, 0
    residual = _largest(Q @ phi)
    while residual > tol and count < max_iter and Q.shape[1] > 0:
        AP = A(P)
        count += P.shape[1]
        factor = _factor(P.T @ AP, P, count)
        D += P @ torch.cholesky_solve(phi, factor)
        Q, Z, zeta = _orthonormal(Q - AP @ torch.cholesky_inverse(factor), inverse)
        P, phi = Z + P @ zeta.T, zeta @ phi
        residual = _largest(Q @ phi)
    return Cycle(D, residual, count)


def _orthonormal(R: Tensor, inverse: Matvec | None) -> tuple[Tensor, Tensor, Tensor]:
    """Q, Z = M⁻¹Q and φ with R = Q φ and QᵀZ = I, from the eigenvectors of RᵀM⁻¹R without those of tiny eigenvalues."""
    Z = R if inverse is None else torch.stack([inverse(r) for r in R.T], dim=1)
    squares, V = torch.linalg.eigh(R.T @ Z)
    keep = squares > 10 * len(squares) * torch.finfo(R.dtype).eps * squares[-1]
    size = squares[keep].sqrt()
    return R @ (V[:, keep] / size), Z @ (V[:, keep] / size), size[:, None] * V[:, keep].T


def _largest(R: Tensor) -> float:
    return torch.linalg.vector_norm(R, dim=0).max().item()


def _factor(curvature: Tensor, P: Tensor, count: int) -> Tensor:
    """The Cholesky factor of PᵀAP.

    Raises:
        NonFiniteError: if it is NaN or infinite.
        IndefiniteError: if it is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex((curvature + curvature.T) / 2)
    is_infinite, is_indefinite = read([(~curvature.isfinite()).any(), failed != 0])
    if is_infinite:
        raise NonFiniteError(bad_product(count))
    if is_indefinite:
        value, vectors = torch.linalg.eigh((curvature + curvature.T) / 2)
        along = P @ vectors[:, 0]
        raise IndefiniteError(negative_curvature(value[0].item() / torch.dot(along, along).item(), count))
    return factor
