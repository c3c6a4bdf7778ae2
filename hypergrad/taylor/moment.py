"""Taylor rules of variances, normalisations and norms."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.nn import functional

from hypergrad.taylor.elementary import composed_of_elementary
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import rule_for


@rule_for("var", "std")
def var(func: Callable, x: Any, dim: Any = None, *, correction: float = 1, keepdim: bool = False, **other: Any) -> Any:
    """The variance, or its square root.

    Raises:
        CannotExpandError: with the deprecated argument.
    """
    if other or isinstance(dim, bool):
        raise CannotExpandError(f"{func.__name__} with unbiased")
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    gap = x - x.mean(dims, keepdim=True)
    count = 1
    for d in dims:
        count *= x.shape[d]
    value = (gap * gap).sum(dims, keepdim=keepdim) / (count - correction)
    return value if func.__name__ == "var" else value.sqrt()


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
def norm(func: Callable, x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """The Euclidean norm.

    Raises:
        CannotExpandError: for other norms.
    """
    ord = other.pop("p", ord)
    if ord not in (2, "fro", None) or any(value is not None for value in other.values()):
        raise CannotExpandError(f"{func.__name__} of order {ord}")
    square = x * x
    return (square.sum() if dim is None else square.sum(dim, keepdim=keepdim)).sqrt()
