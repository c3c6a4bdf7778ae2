"""Taylor rules of moments, and of what is normalised by them."""

from collections.abc import Callable, Sequence
from typing import Any

from hypergrad.taylor.elementary import composed_of_elementary
from hypergrad.taylor.polynomial import CannotExpandError, rule_for


@rule_for("var", "std")
def var(func: Callable, x: Any, dim: Any = None, *, correction: float = 1, keepdim: bool = False, **other: Any) -> Any:
    """The variance, or its root.

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
    func: Callable, x: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(x − mean) / √(var + ε), scaled and shifted."""
    dims = tuple(range(-len(normalized_shape), 0))
    gap = x - x.mean(dims, keepdim=True)
    y = gap * ((gap * gap).mean(dims, keepdim=True) + eps).rsqrt()
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
