"""The coarsest floating-point format in which a loss of a problem is computed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.formats import coarsest
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import epsilon_of

_FOUND = WeakCache[float]()
"""By problem: loss, dtype and whether autocast is on."""


def inner_rounding(oracle: Oracle, params: Tensors, value: Tensor) -> float:
    """ε of the coarsest format that the inner loss goes through on its way from w and λ, as `coarsest`; found once.

    Args:
        oracle: the inner loss.
        params: w.
        value: of the loss there, with its graph.

    Also raised, by what it calls: ValueError if that is float16.
    """
    problem, parts = oracle.problem, None if oracle.is_part else oracle.problem.inner_parts(oracle.batch)
    return _rounding(problem, "inner", value, _of_part(problem.inner_loss, parts, params, oracle.hparams))


def outer_rounding(problem: InnerProblem, params: Tensors, hparams: Tensors, batch: Any, value: Tensor) -> float:
    """The same of the outer loss on a batch."""
    parts = problem.outer_parts(batch)
    return _rounding(problem, "outer", value, _of_part(problem.outer_loss, parts, params, hparams))


def _rounding(problem: InnerProblem, loss: str, value: Tensor, of_part: Callable[[], Tensor] | None) -> float:
    def find() -> float:
        return coarsest(value if of_part is None else of_part(), f"The {loss} loss of {type(problem).__name__}")

    key = loss, value.dtype, torch.is_autocast_enabled(value.device.type)
    return max(_FOUND.get(problem, key, find), epsilon_of(problem))


def _of_part(
    loss: Callable[..., Tensor], parts: Parts | None, params: Tensors, hparams: Tensors
) -> Callable[[], Tensor] | None:
    """Evaluates a loss on the first part of a batch, because the graph of the sum does not show its terms."""
    if parts is None:
        return None

    def evaluate() -> Tensor:
        with torch.enable_grad():
            return loss(leaves(params), hparams, parts[0][0])

    return evaluate
