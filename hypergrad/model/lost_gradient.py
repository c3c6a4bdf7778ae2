"""Parameters that a loss reads without a gradient: changes of the loss against what its gradient says."""

from collections.abc import Callable
from typing import NamedTuple

from hypergrad.core.autodiff import Tensors

_WIDER = 64
"""Times the width of the differences, at which rounding inside the model no longer looks like a lost gradient."""
_LEAST = 1e-3
"""Part of a change of the loss from which it counts as lost. A judgement: far above rounding."""
_AGREEMENT = 0.1
"""Relative difference of the lost parts over two widths up to which they are one slope, and not a kink or rounding."""


class Evaluated(NamedTuple):
    """A loss and its gradient at some parameters, in float64 where possible."""

    w: Tensors
    loss: float
    gradient: Tensors


def lost(pairs: list[tuple[Evaluated, Evaluated]], evaluate: Callable[[Tensors], Evaluated]) -> list[str]:
    """The parameters through which the loss changes otherwise than its gradient says; none if it does not.

    For two points close to each other, L(w₁) − L(w₂) is ½ (∇L(w₁) + ∇L(w₂)) · (w₁ − w₂) up to the third order. A loss
    that reads a parameter by `detach`, `item` or under `no_grad`, or changes a gradient on its way, differs in the
    first order, over every width.

    Args:
        pairs: points around w along one direction, of two widths; they cost nothing more.
        evaluate: the loss elsewhere; called only if something seems to be lost.
    """
    parts = [_lost_part(*pair) for pair in pairs]
    if not _is_one_slope(*parts):
        return []
    first, second = pairs[0]
    w = {name: (p + second.w[name]) / 2 for name, p in first.w.items()}
    d = {name: _WIDER * (p - w[name]) for name, p in first.w.items()}
    if not _is_one_slope(parts[1], _around(w, d, evaluate)):
        return []
    alone = {name: _around(w, {name: x}, evaluate) for name, x in d.items()}
    return [name for name, part in alone.items() if abs(part) > _LEAST] or list(w)


def _lost_part(first: Evaluated, second: Evaluated) -> float:
    """(change of the loss − what the gradients say) / the larger of both."""
    change = first.loss - second.loss
    said = sum(
        float(((g + second.gradient[name]) / 2 * (first.w[name] - second.w[name])).sum())
        for name, g in first.gradient.items()
    )
    size = max(abs(change), abs(said))
    return (change - said) / size if size > 0 else 0.0


def _around(w: Tensors, d: Tensors, evaluate: Callable[[Tensors], Evaluated]) -> float:
    def moved(sign: int) -> Evaluated:
        return evaluate({name: p + sign * d[name] if name in d else p for name, p in w.items()})

    return _lost_part(moved(1), moved(-1))


def _is_one_slope(first: float, second: float) -> bool:
    return abs(first) > _LEAST and abs(first - second) <= _AGREEMENT * abs(first)


def refusal(subject: str, names: list[str], remedy: str) -> str:
    """The message for parameters whose gradient is lost."""
    some = ", ".join(map(repr, names[:3])) + " and others" * (len(names) > 3)
    return (
        f"{subject} has a gradient with respect to {some} that is not the derivative of the loss: forward reads a "
        "parameter without its gradient (detach, .data, item(), no_grad), or changes gradients on their way, as a "
        f"straight-through or reversed gradient does. A hypergradient would leave out this part. {remedy}"
    )
