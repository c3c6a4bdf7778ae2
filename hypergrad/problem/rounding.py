"""The coarsest floating-point format in which a loss of a problem is computed."""

from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.core.formats import autocasts, coarsest
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.precision import epsilon_of

_FOUND = WeakCache[float]()
"""By problem: loss, dtype and whether autocast is on."""


def rounding(problem: InnerProblem, loss: str, value: Tensor) -> float:
    """ε of the coarsest format that a loss goes through on its way from w and λ, as `coarsest`; found once.

    Args:
        problem: whose loss it is.
        loss: "inner" or "outer".
        value: of the loss, with its graph.

    Also raised, by what it calls: ValueError if that is float16.
    """
    key = loss, value.dtype, autocasts(value.device.type)
    found = _FOUND.get(problem, key, lambda: coarsest(value, f"The {loss} loss of {type(problem).__name__}"))
    return max(found, epsilon_of(problem))
