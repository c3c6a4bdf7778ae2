"""Losses as sums over the parts of a batch."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from torch import Tensor

from hypergrad.core.accumulation import accumulated_loss
from hypergrad.core.autodiff import Tensors
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.returned import require_scalar

_ROUNDING = 1e-6
"""By which the sum of shares may differ from 1; a forgotten part is more."""


def accumulated_outer_loss(problem: InnerProblem, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
    """f(w, λ), shape (), one part of the batch at a time if it has parts; differentiable if grad mode is enabled.

    Also raised, by what it calls: TypeError or ValueError if a part or its share is none; ValueError if the shares do
    not have the sum 1.
    """
    parts = problem.outer_parts(batch)
    if parts is None:
        return problem.outer_loss(params, hparams, batch)
    names = (list(params), list(hparams))
    parts = require_parts(parts, f"{type(problem).__name__}.outer_parts")
    summands = [scaled_loss(problem.outer_loss, names, part, share) for part, share in parts]
    return accumulated_loss(summands, [*params.values(), *hparams.values()])


def scaled_loss(
    loss: Callable[[Tensors, Tensors, Any], Tensor], names: tuple[list[str], list[str]], part: Any, share: float
) -> Callable[..., Tensor]:
    """(*w, *λ) ↦ share · loss(w, λ, part), shape (), in the order of the names of w and λ."""

    def summand(*tensors: Tensor) -> Tensor:
        count = len(names[0])
        w, hp = (dict(zip(*pair, strict=True)) for pair in zip(names, (tensors[:count], tensors[count:]), strict=True))
        return share * require_scalar(loss(w, hp, part), "The loss of a part").reshape(())

    return summand


def require_parts(parts: Parts, name: str) -> Parts:
    """The given parts, after a check of their shares.

    Args:
        parts: of a batch.
        name: of the method that returned them.

    Raises:
        TypeError: if they are no pairs of a part and a number.
        ValueError: if a share is not positive, or their sum is not 1.
    """
    pairs = [pair for pair in parts if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Real)]
    if len(pairs) < len(parts):
        raise TypeError(f"{name} must return pairs (part of the batch, share) with shares that are numbers.")
    shares = [float(share) for _, share in pairs]
    if not shares or not min(shares) > 0 or abs(math.fsum(shares) - 1) > _ROUNDING:
        raise ValueError(
            f"{name} must return parts whose shares are positive and have the sum 1, but it returned {len(shares)} "
            f"with the sum {math.fsum(shares):.6g}. For a mean of n terms, the share of n_k of them is n_k / n."
        )
    return pairs


def require_sum(problem: InnerProblem) -> None:
    """Require that the optimality condition of a problem with parts is the gradient of its loss.

    Raises:
        ValueError: if the problem has its own condition.
    """
    if not problem.is_minimisation:
        raise ValueError(
            f"{type(problem).__name__} divides its inner batch into parts, but has an optimality condition of its own, "
            "which need not be a sum over parts. Let inner_parts return None, or leave the condition at its default."
        )
