"""Taylor rules of functions that are linear, constant almost everywhere, or read metadata."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.operations import DisableTorchFunctionSubclass
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of, rule_for


@rule_for(
    *("shape", "dtype", "device", "layout", "ndim", "is_cuda", "is_sparse", "is_quantized", "is_meta", "names"),
    *("size", "dim", "numel", "nelement", "stride", "is_floating_point", "is_complex", "is_contiguous", "element_size"),
    *("get_device", "__len__", "requires_grad", "is_leaf", "type", "ndimension", "is_nested"),
)
def metadata(func: Callable, *args: Any, **kwargs: Any) -> Any:
    """Shape, dtype and other properties that do not depend on values."""
    with DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


@rule_for(
    *("eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "isclose"),
    *("allclose", "isnan", "isinf", "isfinite", "logical_not", "logical_and", "logical_or", "sign", "sgn", "floor"),
    *("ceil", "round", "trunc", "heaviside", "argmax", "argmin", "argsort", "searchsorted", "any", "all", "__bool__"),
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones"),
    *("new_full", "new_empty", "new_tensor", "detach", "one_hot", "equal", "signbit", "bernoulli", "multinomial"),
)
def constant(func: Callable, *args: Any, **kwargs: Any) -> Any:
    """f(c₀), for a function with derivative zero."""
    at_zero = [arg.coefs[0] if isinstance(arg, Polynomial) else arg for arg in args]
    return func(*at_zero, **{name: v.coefs[0] if isinstance(v, Polynomial) else v for name, v in kwargs.items()})


@rule_for(
    *("sum", "mean", "view", "reshape", "view_as", "reshape_as", "transpose", "t", "adjoint", "T", "mT"),
    *("permute", "movedim", "moveaxis", "swapaxes", "swapdims", "squeeze", "unsqueeze", "flatten", "unflatten"),
    *("ravel", "expand", "expand_as", "broadcast_to", "repeat", "repeat_interleave", "tile", "__getitem__"),
    *("index_select", "gather", "take", "take_along_dim", "narrow", "select", "diag", "diagonal", "trace", "tril"),
    *("triu", "diag_embed", "flip", "roll", "rot90", "cumsum", "clone", "contiguous", "positive", "__pos__", "neg"),
    *("negative", "__neg__", "to", "double", "float", "type_as", "sum_to_size", "unfold", "avg_pool1d"),
    *("avg_pool2d", "adaptive_avg_pool2d", "interpolate", "masked_select", "chunk", "split", "tensor_split", "unbind"),
    *("__iter__", "alias", "nll_loss"),
)
def linear(func: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """f(x) = Σ f(cᵢ) tⁱ, for a function that is linear in its first argument and may return several tensors.

    A conversion to integers, among them, is constant.

    Raises:
        CannotExpandError: if another argument is a polynomial.
    """
    if not isinstance(x, Polynomial) or any(isinstance(arg, Polynomial) for arg in (*args, *kwargs.values())):
        raise CannotExpandError(getattr(func, "__name__", str(func)))
    first = func(x.coefs[0], *args, **kwargs)
    if isinstance(first, Tensor) and not first.is_floating_point():
        return first
    images: list[Any] = [first, *[None if c is None else func(c, *args, **kwargs) for c in x.coefs[1:]]]
    x.may_share = True
    if isinstance(first, Tensor):
        return _sharing(images)
    parts = [_sharing([None if image is None else image[i] for image in images]) for i in range(len(first))]
    return type(first)(parts) if isinstance(first, tuple | list) else iter(parts)


def _sharing(coefs: list[Any]) -> Polynomial:
    found = Polynomial(coefs)
    found.may_share = True
    return found


@rule_for("pad")
def pad(func: Callable, x: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Polynomial:
    """x with more entries around it, which have the value in c₀ alone."""
    first = func(x.coefs[0], pad, mode, value)
    return Polynomial([first, *[None if c is None else func(c, pad, mode) for c in x.coefs[1:]]])


@rule_for("diff")
def diff(func: Callable, x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours along a dimension, of x between what comes before and after it."""
    pieces = [piece for piece in (prepend, x, append) if piece is not None]
    whole: Any = torch.cat(pieces, dim) if len(pieces) > 1 else x
    return Polynomial([None if c is None else torch.diff(c, n, dim) for c in whole.coefs])


@rule_for("nansum")
def nansum(func: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Σ x without the entries whose c₀ is NaN."""
    return x.masked_fill(x.isnan(), 0).sum(*args, **kwargs)


@rule_for("broadcast_tensors")
def broadcast_tensors(func: Callable, *tensors: Any) -> tuple[Any, ...]:
    """All tensors in one shape; a constant stays one."""
    shape = torch.broadcast_shapes(*(x.shape for x in tensors))
    return tuple(x.expand(shape) for x in tensors)


@rule_for("dropout", "dropout1d", "dropout2d", "dropout3d")
def dropout(func: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """x times one mask."""
    return x * func(torch.ones_like(x.coefs[0]), *args, **kwargs)


@rule_for("cat", "concat", "concatenate", "stack", "hstack", "vstack", "column_stack")
def joined(func: Callable, tensors: Any, *args: Any, **kwargs: Any) -> Polynomial:
    """The coefficients, joined order by order."""
    degree = degree_of(*tensors)
    parts = [coefs_of(tensor, degree) for tensor in tensors]
    joins: list[Any] = []
    for k in range(degree + 1):
        some = any(part[k] is not None for part in parts)
        pieces = [torch.zeros_like(part[0]) if part[k] is None else part[k] for part in parts]
        joins.append(func(pieces, *args, **kwargs) if some else None)
    return Polynomial(joins)
