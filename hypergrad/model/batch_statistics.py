"""Batch normalisation by mean and variance that are given, such as those of a batch that several processes share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hypergrad.core.collectives import Ranks

Moments = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps x of shape (n, channels, …) to the mean and the variance (of divisor n …) of each channel, shape (channels,)."""

_HALF = (torch.float16, torch.bfloat16)


class normalizing_by(TorchFunctionMode):  # noqa: N801 (a context manager)
    """A context in which batch normalisation by the statistics of the batch uses given moments instead.

    Sums are in float32 at least. Running averages, which `PureModule` removes, are not kept.

    Args:
        moments: of the inputs of each layer.
    """

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self._moments = moments

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.batch_norm:
            return func(*args, **kwargs)
        x, running_mean, running_var, weight, bias, training, momentum, eps = _arguments(*args, **kwargs)
        if not training or running_mean is not None:
            return func(x, running_mean, running_var, weight, bias, training, momentum, eps)
        return self._normalized(x, weight, bias, eps)

    def _normalized(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        wide = x.float() if x.dtype in _HALF else x
        mean, var = self._moments(wide)
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        found = (wide - _per_channel(mean, x)) * _per_channel(scale, x)
        return (found if bias is None else found + _per_channel(bias, x)).to(x.dtype)


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of x alone."""
    mean = x.mean(_others(x))
    return mean, (x - _per_channel(mean, x)).square().mean(_others(x))


def moments_over(ranks: Ranks, is_empty: bool, x: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of the x of all ranks together, differentiable to any order, by two all-reduces.

    mean = Σ_r Σ x / Σ_r n_r and var = Σ_r Σ (x − mean)² / Σ_r n_r, in two passes, because Σ x² − n mean² may cancel.

    Args:
        ranks: the processes, which all make this call.
        is_empty: whether the x of this one do not count.
        x: of this process, shape (n_r, channels, …).
    """
    counted = 0.0 if is_empty else 1.0
    num = x.new_full((1,), counted * x.numel() / x.shape[1])
    sums = _shared(ranks, torch.cat([counted * x.sum(_others(x)), num]))
    mean, total = sums[:-1] / sums[-1], sums[-1]
    return mean, _shared(ranks, counted * (x - _per_channel(mean, x)).square().sum(_others(x))) / total


def _shared(ranks: Ranks, x: Tensor) -> Tensor:
    """The sum of each rank's x, used by each rank on its own, so that the derivatives are those of all of them."""
    return ranks.vary(ranks.total([x]))[0]


def _others(x: Tensor) -> list[int]:
    """The axes of x without that of the channels."""
    return [axis for axis in range(x.ndim) if axis != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *(1 for _ in range(x.ndim - 2)))


def _arguments(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Any, ...]:
    """Those of `torch.nn.functional.batch_norm`, in order."""
    return input, running_mean, running_var, weight, bias, training, momentum, eps
