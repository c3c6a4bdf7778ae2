"""What became of a random composition: right, refused, outside its domain, wrong in silence, or a traceback."""

import math
import warnings
from typing import Any

import torch
from compositions import Composition, OutsideError
from torch import Tensor

from hypergrad.core.errors import NoTaylorRuleWarning
from hypergrad.taylor import Polynomial
from hypergrad.taylor.elementary import Elementary
from hypergrad.taylor.names import CannotExpandError

RIGHT, AT_KINK, REFUSED, OUTSIDE, WRONG, TRACEBACK = (
    "right",
    "right at a kink",
    "refused",
    "outside",
    "wrong",
    "traceback",
)
Verdict = tuple[str, str]
"""One of the words above, and the details."""


def plain_coefficients(case: Composition) -> list[Tensor]:
    """Those of PyTorch's nested reverse mode, which takes its own subgradient at a kink."""

    def along(t: Tensor) -> Tensor:
        x, y = (sum(v * t**k for k, v in enumerate(path) if v is not None) for path in (case.x, case.y))
        with Elementary():  # PyTorch's derivatives of normalisations are wrong from the third order on
            return case.of_tensors(x, y)

    found, derivative = [], along
    for k in range(case.degree + 1):
        found.append(derivative(torch.zeros(())) / math.factorial(k))
        if k < case.degree:
            derivative = torch.func.jacrev(derivative)
    return found


def coefficients(value: Any, degree: int) -> list[Tensor]:
    """Of a polynomial or a constant, without gaps."""
    coefs = value.coefs if isinstance(value, Polynomial) else [value, *[None] * degree]
    return [torch.zeros_like(coefs[0]) if c is None else c for c in coefs]


def _rounding(case: Composition) -> list[float]:
    """How far the coefficients move if those of all inputs and results move by a few units in the last place."""
    generator = torch.Generator().manual_seed(0)

    def moved(value: Any) -> Any:
        if not isinstance(value, Polynomial):
            return value
        noise = 4e-16 * torch.randn(len(value.coefs), *value.shape, generator=generator)
        return Polynomial([None if c is None else c * (1 + e) for c, e in zip(value.coefs, noise, strict=True)])

    found = []
    for _ in range(3):
        x, y = (moved(Polynomial(path)) for path in (case.x, case.y))
        for name in case.names:
            alone = Composition((name,), case.x, case.y, case.c)
            x, y = moved(alone.of_tensors(x, y)), x
        found.append(coefficients(x, case.degree))
    return [float(max((a - b).abs().max() for a in each for b in each)) for each in zip(*found, strict=True)]


def verdict(case: Composition) -> Verdict:
    """Of the coefficients of a composition along its path."""
    shapes: list = []
    try:
        plain = case.of_tensors(case.x[0], case.y[0], shapes)
        exact = case.exact
    except OutsideError as error:
        return OUTSIDE, str(error)
    except RuntimeError as error:
        return OUTSIDE, f"PyTorch: {error}"
    if not plain.isfinite().all():
        return OUTSIDE, "no finite value"
    met: list = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTaylorRuleWarning)
        try:
            found = coefficients(case.of_tensors(Polynomial(case.x), Polynomial(case.y), met), case.degree)
            rounding = _rounding(case)
        except CannotExpandError as error:
            return REFUSED, str(error)
        except Exception as error:
            return TRACEBACK, f"{type(error).__name__}: {error}"
    if met != shapes:
        return WRONG, f"shapes and dtypes {met} where PyTorch has {shapes}"
    smooth = exact.smooth
    for k in range(smooth + 1):
        problem = _difference(found[k], exact.coefficient(k), rounding[k])
        if problem and case.smooth() < k:
            smooth = k - 1
            break
        if problem:
            return problem[0], f"order {k} {problem[1]}"
    if smooth == case.degree:
        return RIGHT, ""
    if exact.left is None and exact.right is None:
        return RIGHT, "at an isolated point"
    truth = plain_coefficients(case)
    for k in range(smooth + 1, case.degree + 1):
        if not truth[k].isfinite().all():
            return AT_KINK, f"to order {k - 1}"
        problem = _difference(found[k], truth[k], rounding[k])
        if problem:
            return problem[0], f"at a kink, order {k} {problem[1]}"
    return AT_KINK, ""


def _difference(found: Tensor, truth: Tensor, rounding: float) -> Verdict | None:
    if not found.isfinite().all():
        return REFUSED, f"is {found.tolist()} where {truth.tolist()} is right"
    size = 1 + float(truth.abs().max())
    error = float((found - truth).abs().max())
    if error > 1e-9 * size + 100 * rounding:
        return (
            WRONG,
            f"is {found.tolist()} where {truth.tolist()} is right (error {error:.1e}, rounding {rounding:.1e})",
        )
    return None
