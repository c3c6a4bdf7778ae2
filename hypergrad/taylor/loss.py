"""Taylor rules of loss functions, composed of functions that have rules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, nll_loss

from hypergrad.taylor.elementary import composed_of_elementary
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.polynomial import Polynomial, rule_for


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
    """−Σ y log softmax(x), for classes or probabilities of classes, which label smoothing moves towards 1/K.

    Raises:
        CannotExpandError: with polynomial weights or targets, or the deprecated arguments.
    """
    given = (size_average, reduce)
    if given != (None, None) or isinstance(weight, Polynomial) or isinstance(target, Polynomial):
        raise CannotExpandError("cross_entropy with these arguments")
    dim = 0 if x.ndim == 1 else 1
    q = torch.log_softmax(x, dim)
    K, weights = x.shape[dim], None if weight is None else weight.reshape(-1, *[1] * (x.ndim - 1 - dim))
    weighted = q if weights is None else q * weights
    if target.is_floating_point():
        total = -(weighted * ((1 - label_smoothing) * target + label_smoothing / K)).sum(dim)
        return total.sum() / max(1, total.numel()) if reduction == "mean" else _reduced(total, reduction)
    if not label_smoothing:
        return nll_loss(q, target, weight, ignore_index=ignore_index, reduction=reduction)
    counted = (target != ignore_index).to(x.dtype)
    terms = (1 - label_smoothing) * nll_loss(q, target, weight, ignore_index=ignore_index, reduction="none")
    terms = terms - label_smoothing / K * weighted.sum(dim) * counted
    if reduction != "mean":
        return _reduced(terms, reduction)
    counts = counted if weight is None else counted * weight[target.clamp(0, K - 1)]
    return terms.sum() / counts.sum()


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
@composed_of_elementary("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss")
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
