"""Taylor rules of softmax, its logarithm, and log Σ exp."""

import math
from collections.abc import Callable
from typing import Any

import torch

from hypergrad.taylor.analytic import derivative, integral
from hypergrad.taylor.names import CannotExpandError, name_of
from hypergrad.taylor.polynomial import Polynomial, rule_for
from hypergrad.taylor.series import Coefficients, convolved, times


def _softmax(x: Coefficients, dim: int) -> tuple[Polynomial, Polynomial, Polynomial]:
    """softmax p, its logarithm q and s = log Σ exp x, from s′ = Σ p x′, q = x − s and p′ = p q′.

    x is relative to the path of its largest entry, whose q is tiny where p is near 1: x − s would lose all its digits.
    """
    largest = x[0].argmax(dim, keepdim=True)
    tops = [None if c is None else c.gather(dim, largest) for c in x[1:]]
    x = [x[0], *[None if c is None or top is None else c - top for c, top in zip(x[1:], tops, strict=True)]]
    p: list[Any] = [torch.softmax(x[0], dim)]
    q: list[Any] = [torch.log_softmax(x[0], dim)]
    s: list[Any] = [torch.logsumexp(x[0], dim, keepdim=True)]
    dx, dq = derivative(x), []
    for k in range(1, len(x)):
        weighted = integral(dx, p, k)
        shift = None if weighted is None else weighted.sum(dim, keepdim=True)
        value = x[k] if shift is None else -shift if x[k] is None else x[k] - shift
        if value is not None and value.shape != q[0].shape:
            value = value.expand(q[0].shape)
        top = tops[k - 1]
        s.append(shift if top is None else top if shift is None else shift + top)
        q.append(value)
        dq.append(None if value is None else k * value)
        total = convolved(times, dq, p, k - 1)
        p.append(None if total is None else total / k)
    return Polynomial(p), Polynomial(q), Polynomial(s)


@rule_for("softmax", "log_softmax")
def softmax(func: Callable, x: Polynomial, dim: int | None = None, *args: Any, **kwargs: Any) -> Polynomial:
    """exp(x) / Σ exp(x) along `dim`, or its logarithm.

    Raises:
        CannotExpandError: if no `dim` is given.
    """
    if dim is None:
        raise CannotExpandError(f"{func.__name__} without dim")
    for dtype in (*args, *kwargs.values()):
        x = x.to(dtype) if isinstance(dtype, torch.dtype) else x  # type: ignore[assignment]
    return _softmax(x.coefs, dim)[name_of(func) == "log_softmax"]


@rule_for("logsumexp")
def logsumexp(func: Callable, x: Polynomial, dim: Any, keepdim: bool = False) -> Any:
    """log Σ exp x along one dimension.

    Raises:
        CannotExpandError: if there are several dimensions.
    """
    if not isinstance(dim, int):
        raise CannotExpandError("logsumexp over several dimensions")
    total = _softmax(x.coefs, dim)[2]
    return total if keepdim else total.squeeze(dim)


@rule_for("logcumsumexp")
def logcumsumexp(func: Callable, x: Any, dim: int) -> Any:
    """log Σ exp x up to each place along a dimension; a sum for each place, as derivatives of PyTorch's are NaN."""
    rows = x.movedim(dim, -1)
    later = torch.ones(rows.shape[-1], rows.shape[-1], dtype=torch.bool, device=x.device).triu(1)
    return rows.unsqueeze(-2).masked_fill(later, -math.inf).logsumexp(-1).movedim(-1, dim)
