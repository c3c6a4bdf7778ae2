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
        CannotExpandError: for A from the right, or a batch of right-hand sides that are vectors.
    """
    is_vector = b.ndim == 1
    if not left or (not is_vector and b.ndim != A.ndim):
        raise CannotExpandError("solve with these arguments")
    degree = degree_of(A, b)
    column = [None if c is None else c[:, None] if is_vector else c for c in coefs_of(b, degree)]
    x = _solved(coefs_of(A, degree), column)
    return Polynomial([None if c is None else c[:, 0] if is_vector else c for c in x])


@rule_for("logdet", "slogdet", "det")
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
    return logarithm + torch.log(sign) if func.__name__.endswith("logdet") else sign * torch.exp(logarithm)


def _over(total: Tensor | None, k: int) -> Tensor | None:
    return None if total is None else total / k


@composed_of_elementary("det")
def det(func: Callable, A: Tensor) -> Tensor:
    """± exp(log |det A|), of which higher derivatives are right where PyTorch's are not, but at a singular A."""
    sign, logarithm = torch.linalg.slogdet(A)
    return sign * torch.exp(logarithm)
