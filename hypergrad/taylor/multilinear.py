"""Taylor rules of functions that are linear in each of two arguments: matrix products and layers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergrad.taylor.algebraic import add
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of, rule_for
from hypergrad.taylor.series import Coefficients, convolve


@rule_for("matmul", "__matmul__", "mm", "mv", "bmm", "dot", "inner", "outer", "vdot", "ger", "kron", "tensordot")
def bilinear(func: Callable, x: Any, y: Any, *args: Any, **kwargs: Any) -> Polynomial:
    """A function that is linear in each of its first two arguments."""
    degree = degree_of(x, y)
    product = partial(_apply, func, args, kwargs)
    return Polynomial(convolve(product, coefs_of(x, degree), coefs_of(y, degree)))


def _apply(func: Callable, args: tuple, kwargs: dict, a: Tensor, b: Tensor) -> Tensor:
    return func(a, b, *args, **kwargs)


@rule_for("__rmatmul__")
def rmatmul(func: Callable, y: Any, x: Any) -> Polynomial:
    """x y."""
    return bilinear(torch.matmul, x, y)


@rule_for("einsum")
def einsum(func: Callable, equation: str, *given: Any) -> Polynomial:
    """The sum of products of an equation in one or two operands.

    Raises:
        CannotExpandError: if there are more.
    """
    operands = given[0] if isinstance(given[0], list | tuple) else given
    if len(operands) > 2:
        raise CannotExpandError(f"einsum of {len(operands)} operands")
    if len(operands) == 1:
        return Polynomial([None if c is None else torch.einsum(equation, c) for c in operands[0].coefs])
    degree = degree_of(*operands)
    first, second = (coefs_of(operand, degree) for operand in operands)
    return Polynomial(convolve(lambda a, b: torch.einsum(equation, a, b), first, second))


@rule_for("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d")
def affine(func: Callable, x: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Polynomial:
    """A layer: bilinear in its input and weight, and linear in its bias."""
    degree = degree_of(x, weight, bias)
    product = partial(_affine_without_bias, func, args, kwargs)
    if isinstance(x, Polynomial) or isinstance(weight, Polynomial):
        coefs: Coefficients = convolve(product, coefs_of(x, degree), coefs_of(weight, degree))
    else:
        coefs = coefs_of(product(x, weight), degree)
    if bias is None:
        return Polynomial(coefs)
    if func is not torch.nn.functional.linear:  # channels come before the positions
        bias = bias.reshape(-1, *[1] * (coefs[0].ndim - (2 if x.ndim == coefs[0].ndim else 1)))
    return add(torch.add, Polynomial(coefs), bias)


def _affine_without_bias(func: Callable, args: tuple, kwargs: dict, x: Tensor, weight: Tensor) -> Tensor:
    return func(x, weight, None, *args, **kwargs)
