"""Taylor rules of inverses, solutions of linear systems and determinants."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.analytic import derivative
from hypergrad.taylor.elementary import composed_of_elementary
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of, rule_for
from hypergrad.taylor.series import Coefficients, convolved

_LARGEST_SINGULAR = 16
"""Rows of a matrix whose determinant has derivatives where it is singular. A judgement: rounding grows with them."""
_SINGULAR = 1e-10
"""Determinants, relative to the product of the lengths of the rows, that count as zero."""


def _solved(A: Coefficients, b: Coefficients) -> list[Any]:
    """x = A⁻¹ b from A x = b: x_k = A₀⁻¹ (b_k − Σ_{i<k} A_{k−i} x_i)."""
    x: list[Any] = []
    for k in range(len(A)):
        known, top = convolved(lambda c, M: M @ c, x, A, k), b[k]
        rest = top if known is None else -known if top is None else top - known
        x.append(None if rest is None else torch.linalg.solve(A[0], rest))
    return x


def _inverse(A: Coefficients) -> list[Any]:
    eye = torch.eye(A[0].shape[-1], dtype=A[0].dtype, device=A[0].device).expand_as(A[0])
    return _solved(A, [eye, *[None] * (len(A) - 1)])


@rule_for("inv", "inverse")
def inverse(func: Callable, A: Polynomial) -> Polynomial:
    """A⁻¹."""
    return Polynomial(_inverse(A.coefs))


@rule_for("solve")
def solve(func: Callable, A: Any, b: Any, *, left: bool = True) -> Polynomial:
    """A⁻¹ b, for one right-hand side or the columns of a matrix.

    Raises:
        CannotExpandError: for x A = b, or a batch of right-hand sides that are vectors.
    """
    is_vector = b.ndim == 1
    if not left or (not is_vector and b.ndim != A.ndim):
        raise CannotExpandError("solve with these arguments")
    degree = degree_of(A, b)
    column = [None if c is None else c[:, None] if is_vector else c for c in coefs_of(b, degree)]
    x = _solved(coefs_of(A, degree), column)
    return Polynomial([None if c is None else c[..., 0] if is_vector else c for c in x])


@rule_for("logdet", "slogdet")
def logdet(func: Callable, A: Polynomial) -> Any:
    """(log |det A|)′ = tr(A⁻¹ A′), for each matrix of a batch."""
    sign, value = torch.linalg.slogdet(A.coefs[0])
    slope, dA = _inverse(A.coefs), derivative(A.coefs)

    def trace_of_product(M: Tensor, N: Tensor) -> Tensor:
        return (M * N.mT).sum((-2, -1))

    coefs = [value, *[_over(convolved(trace_of_product, dA, slope, k - 1), k) for k in range(1, len(A.coefs))]]
    logarithm = Polynomial(coefs)
    if func.__name__.endswith("slogdet"):
        return torch.return_types.linalg_slogdet((sign, logarithm))  # type: ignore[attr-defined]
    return logarithm + torch.log(sign)


def _over(total: Tensor | None, k: int) -> Tensor | None:
    return None if total is None else total / k


@rule_for("det")
@composed_of_elementary("det")
def det(func: Callable, A: Any) -> Any:
    """± exp(log |det A|), or, for a singular A of up to 16 rows, by products alone.

    Its higher derivatives are right, unlike PyTorch's.
    """
    n = A.shape[-1]
    if n > _LARGEST_SINGULAR:
        sign, logarithm = torch.linalg.slogdet(A)
        return sign * torch.exp(logarithm)
    A0 = (A.coefs[0] if isinstance(A, Polynomial) else A).detach()
    # Rows at right angles have a determinant of the product of their lengths.
    is_singular = torch.linalg.det(A0).abs() <= _SINGULAR * torch.linalg.vector_norm(A0, dim=-1).prod(-1)
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    sign, logarithm = torch.linalg.slogdet(torch.where(is_singular[..., None, None], eye, A))
    return torch.where(is_singular, _det_by_products(A, eye), sign * torch.exp(logarithm))


def _det_by_products(A: Any, eye: Tensor) -> Any:
    """The last coefficient of the characteristic polynomial, by the recursion of Faddeev and Le Verrier."""
    M, c = A, -A.diagonal(dim1=-2, dim2=-1).sum(-1)
    for k in range(2, A.shape[-1] + 1):
        M = A @ (M + c[..., None, None] * eye)
        c = -M.diagonal(dim1=-2, dim2=-1).sum(-1) / k
    return c * (-1) ** A.shape[-1]
