"""Whether the terms of a loss make its value, so that examples can be weighted."""

import torch
from torch import Tensor

from hypergrad.model.criterion import Criterion, no_terms

_MARGIN = 1e3
"""Rounding that is allowed, in units of the machine epsilon; another denominator is off by far more."""
_COARSEST = 0.05
"""The most that is allowed, which matters for half precision only."""


def require_terms(criterion: Criterion, z: Tensor, y: Tensor, classes: Tensor | None = None) -> None:
    """Require that the terms of the loss make its value, on these examples and on some of them.

    The reduction of a user's loss is found out.

    Args:
        criterion: the loss.
        z: outputs, shape (m, …).
        y: targets.
        classes: as in `Criterion.value`.

    Raises:
        ValueError: if the loss gives no terms, or terms that do not make its value.
    """
    declared = criterion.reduction
    for reduction in (declared,) if criterion.known else (declared, "mean", "sum", "batchmean"):
        criterion.reduction = reduction
        try:
            off = max(_off(criterion, z[:m], y[:m], None if classes is None else classes[:m]) for m in _sizes(len(y)))
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(no_terms(f"with reduction='none' it raises {type(error).__name__}: {error}")) from error
        if off <= min(_MARGIN * torch.finfo(z.dtype).eps, _COARSEST):
            return
    criterion.reduction = None
    raise ValueError(
        no_terms("neither the mean nor the sum of the terms that it returns for reduction='none' is its value")
    )


def _sizes(n: int) -> tuple[int, ...]:
    return (n, (n + 1) // 2) if n > 1 else (n,)


@torch.no_grad()
def _off(criterion: Criterion, z: Tensor, y: Tensor, classes: Tensor | None) -> float:
    """The error of the mean of the terms, relative to the mean of their absolute values."""
    terms, value = criterion.each(z, y, classes), criterion.value(z, y, classes)
    if not value.isfinite():
        return 0.0  # all targets are ignored
    return ((terms.mean() - value).abs() / terms.abs().mean().clamp_min(torch.finfo(z.dtype).tiny)).item()
