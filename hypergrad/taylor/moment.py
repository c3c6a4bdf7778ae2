"""Taylor rules of variances, normalisations and norms."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from hypergrad.taylor.elementary import composed_of_elementary
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, rule_for


@rule_for("var", "std")
@composed_of_elementary("std")
def var(
    func: Callable, x: Any, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False, **other: Any
) -> Any:
    """The variance, or its square root.

    Raises:
        CannotExpandError: with the deprecated argument.
    """
    if other or isinstance(dim, bool) or x.is_complex():
        raise CannotExpandError(f"{func.__name__} with unbiased")
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    gap = x - x.mean(dims, keepdim=True)
    count = 1
    for d in dims:
        count *= x.shape[d]
    value = (gap * gap).sum(dims, keepdim=keepdim) / (count - (1 if correction is None else correction))
    return value if func.__name__ == "var" else _root(value, gap, dims, keepdim)


@rule_for("layer_norm")
@composed_of_elementary("layer_norm")
def layer_norm(
    func: Callable,
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *ignored: Any,
) -> Any:
    """(x − mean) / √(var + ε), scaled and shifted."""
    return _affine(_standardised(x, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


@rule_for(functional.batch_norm, functional.instance_norm)  # those of `torch` have another order of arguments
@composed_of_elementary(functional.batch_norm, functional.instance_norm)
def batch_norm(
    func: Callable,
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *ignored: Any,
    use_input_stats: bool = True,
) -> Any:
    """(x − mean) / √(var + ε) for each channel, over a batch or over each example (`instance_norm`).

    Raises:
        CannotExpandError: if running averages would change.
    """
    shape = (1, -1, *[1] * (x.ndim - 2))
    weight, bias = (None if value is None else value.reshape(shape) for value in (weight, bias))
    is_batch = func.__name__ == "batch_norm"
    if training if is_batch else use_input_stats:
        if running_mean is not None or running_var is not None:
            raise CannotExpandError(f"{func.__name__} that keeps running averages")
        return _affine(_standardised(x, (*((0,) if is_batch else ()), *range(2, x.ndim)), eps), weight, bias)
    gap = x - running_mean.reshape(shape)
    return _affine(gap * (running_var.reshape(shape) + eps) ** -0.5, weight, bias)


def _standardised(x: Any, dims: tuple[int, ...], eps: float) -> Any:
    gap = x - x.mean(dims, keepdim=True)
    return gap * ((gap * gap).mean(dims, keepdim=True) + eps).rsqrt()


def _affine(y: Any, weight: Any, bias: Any) -> Any:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@rule_for("norm", "vector_norm")
@composed_of_elementary("norm", "vector_norm")
def norm(func: Callable, x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """The Euclidean norm, over all entries or along dimensions.

    Raises:
        CannotExpandError: for other norms, among them those of a matrix by `torch.linalg.norm`.
    """
    ord = other.pop("p", ord)
    is_spectral = func is torch.linalg.norm and ord == 2 and (x.ndim if dim is None else _count(dim)) != 1
    if (
        is_spectral
        or x.is_complex()
        or ord not in (2, "fro", None)
        or any(value is not None for value in other.values())
    ):
        raise CannotExpandError(f"{func.__name__} of order {ord}")
    dims = tuple(range(x.ndim)) if dim is None else dim
    # No dimensions at all are all of them, which sums in the order of torch's own sum.
    square = (x * x).sum() if dim is None and not keepdim else (x * x).sum(dims, keepdim=keepdim)
    return _root(square, x, dims, keepdim)


def _count(dim: Any) -> int:
    return 1 if isinstance(dim, int) else len(dim)


def _root(square: Any, x: Any, dims: Any, keepdim: bool) -> Any:
    """The root of a sum of squares of x; where x stays zero on all of the path, so does the root.

    Of a tensor the derivatives are zero where it is, as PyTorch has it. Its own rules fail in some nestings.
    """
    size = (
        functools.reduce(torch.add, [c * c for c in x.coefs if c is not None]) if isinstance(x, Polynomial) else x * x
    )
    still = size.sum(dims, keepdim=keepdim) == 0
    return torch.where(still, 0, torch.where(still, 1, square).sqrt())
