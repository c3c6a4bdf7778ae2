"""Taylor rules of softmax, losses, normalisations and extrema: compositions of functions that have rules."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, nll_loss

from hypergrad.taylor.analytic import derivative, integral
from hypergrad.taylor.multilinear import convolved, times
from hypergrad.taylor.polynomial import CannotExpandError, Coefficients, Polynomial, rule_for


def _softmax(x: Coefficients, dim: int) -> tuple[Polynomial, Polynomial, Polynomial]:
    """Softmax p, its logarithm q and s = log Σ exp x, from s′ = Σ p x′, q = x − s and p′ = p q′."""
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
        s.append(shift)
        q.append(value)
        dq.append(None if value is None else k * value)
        total = convolved(times, dq, p, k - 1)
        p.append(None if total is None else total / k)
    return Polynomial(p), Polynomial(q), Polynomial(s)


@rule_for("softmax", "log_softmax")
def softmax(func: Callable, x: Polynomial, dim: int | None = None, *args: Any, **kwargs: Any) -> Polynomial:
    """Softmax along `dim`, or its logarithm.

    Raises:
        CannotExpandError: if no `dim` is given.
    """
    if dim is None:
        raise CannotExpandError(f"{func.__name__} without dim")
    return _softmax(x.coefs, dim)[func.__name__ == "log_softmax"]


@rule_for("logsumexp")
def logsumexp(func: Callable, x: Polynomial, dim: Any, keepdim: bool = False) -> Any:
    """Log Σ exp x along one dimension.

    Raises:
        CannotExpandError: if there are several.
    """
    if not isinstance(dim, int):
        raise CannotExpandError("logsumexp over several dimensions")
    total = _softmax(x.coefs, dim)[2]
    return total if keepdim else total.squeeze(dim)


@rule_for("cross_entropy")
def cross_entropy(
    func: Callable,
    x: Any,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """For classes, or probabilities of classes.

    Raises:
        CannotExpandError: with label smoothing, moving weights or targets, or the deprecated arguments.
    """
    given = (size_average, reduce)
    if label_smoothing or given != (None, None) or isinstance(weight, Polynomial) or isinstance(target, Polynomial):
        raise CannotExpandError("cross_entropy with these arguments")
    dim = 0 if x.ndim == 1 else 1
    q = torch.log_softmax(x, dim)
    if not target.is_floating_point():
        return nll_loss(q, target, weight, ignore_index=ignore_index, reduction=reduction)
    if weight is not None:
        q = q * weight.reshape(-1, *[1] * (x.ndim - 1 - dim))
    total = -(q * target).sum(dim)
    return total.sum() / max(1, total.numel()) if reduction == "mean" else _reduced(total, reduction)


@rule_for("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    func: Callable,
    x: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    """(1 − y) x + (1 + (c − 1) y) softplus(−x), with c the weight of the positive class.

    Raises:
        CannotExpandError: with the deprecated arguments.
    """
    if (size_average, reduce) != (None, None):
        raise CannotExpandError("binary_cross_entropy_with_logits with size_average or reduce")
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    each = (1 - target) * x - positive * logsigmoid(x)
    return _reduced(each if weight is None else each * weight, reduction)


@rule_for("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss")
def regression_loss(func: Callable, x: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
    """A function of x − y.

    Raises:
        CannotExpandError: with positional or deprecated arguments.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    if args or not set(kwargs) <= {"reduction", "delta", "beta"}:
        raise CannotExpandError(f"{func.__name__} with these arguments")
    gap, reduction = x - y, kwargs.get("reduction", "mean")
    if func.__name__ == "mse_loss":
        return _reduced(gap * gap, reduction)
    size = abs(gap)
    if func.__name__ == "l1_loss":
        return _reduced(size, reduction)
    delta = kwargs.get("delta", kwargs.get("beta", 1.0))
    if delta == 0:
        return _reduced(size, reduction)
    near = gap * gap / 2 if func.__name__ == "huber_loss" else gap * gap / (2 * delta)
    far = delta * (size - delta / 2) if func.__name__ == "huber_loss" else size - delta / 2
    return _reduced(torch.where(size < delta, near, far), reduction)


def _reduced(each: Any, reduction: str) -> Any:
    return each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each


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


@rule_for("maximum", "max", "minimum", "min", "amax", "amin")
def extremum(func: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """The branch that c₀ takes, of two tensors or of all entries.

    Raises:
        CannotExpandError: along a dimension.
    """
    largest = "max" in func.__name__
    if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:
        y = args[0]
        return torch.where(x >= y if largest else x <= y, x, y)
    if args or kwargs:
        raise CannotExpandError(f"{func.__name__} along a dimension")
    flat = x.reshape(-1)
    return flat[flat.argmax() if largest else flat.argmin()]
