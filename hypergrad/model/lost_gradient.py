"""Parameters that a loss reads without a gradient: changes of the loss against what its gradient says."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from hypergrad.core.autodiff import Tensors

_WIDER = 64
"""Times the width of the differences, at which rounding inside the model no longer looks like a lost gradient."""
_LEAST = 1e-3
"""Part of a change of the loss from which it counts as lost. A judgement: far above rounding."""
_ROUNDING = 100
"""Times the rounding of the loss from which a change of it counts."""
_AGREEMENT = 0.1
"""Relative difference of the lost slopes of two widths up to which they are one, and not a kink or rounding."""


class Evaluated(NamedTuple):
    """A loss and its gradient at some parameters, in float64 where possible."""

    w: Tensors
    loss: float
    gradient: Tensors


@dataclass
class Recording:
    """A loss whose gradients are formed around a point along one direction, as `wrong_derivative.errors` does first.

    Attributes:
        evaluate: the loss and its gradient at some parameters.
        seen: what it was at those of `gradient` so far: two points of one width, then two of another.
    """

    evaluate: Callable[[Tensors], Evaluated]
    seen: list[Evaluated] = field(default_factory=list)

    def gradient(self, w: Tensors) -> Tensors:
        """∇L(w), which is recorded."""
        self.seen.append(self.evaluate(w))
        return self.seen[-1].gradient

    def lost(self) -> list[str]:
        """The parameters through which the loss changes otherwise than its gradient says; none if it does not.

        For two points close to each other, L(w₁) − L(w₂) is ½ (∇L(w₁) + ∇L(w₂)) · (w₁ − w₂) up to the third order. A
        loss that reads a parameter by `detach`, `item` or under `no_grad`, or changes a gradient on its way, differs in
        the first order, over every width. More points are tried only if something seems to be lost.
        """
        first, second, *far = self.seen[:4]
        near = _lost_slope(first, second)
        if not _are_one(near, _lost_slope(*far)):
            return []
        w = {name: (p + second.w[name]) / 2 for name, p in first.w.items()}
        d = {name: _WIDER * (p - w[name]) for name, p in first.w.items()}
        if not _are_one(near, self._around(w, d)):
            return []
        alone = {name: self._around(w, {name: x}) for name, x in d.items()}
        return [name for name, slope in alone.items() if slope] or list(w)

    def crosses_a_kink(self, wrong: Mapping[str, float]) -> bool:
        """Whether the differences ahead of the point and behind it disagree by as much as seems wrong.

        A rectifier that is dead, with weights that a penalty has shrunk to 0, has a kink there over every width.

        Args:
            wrong: the relative errors by differences of the tensors that seem wrong; each must have its kink.
        """
        ahead, behind = self.seen[:2]
        here = self.evaluate({name: (p + behind.w[name]) / 2 for name, p in ahead.w.items()}).gradient
        eps = torch.finfo(next(iter(here.values())).dtype).eps
        slopes = {name: torch.linalg.vector_norm(g - behind.gradient[name]) for name, g in ahead.gradient.items()}
        rounding = 100 * eps ** (2 / 3) * torch.stack([*slopes.values()]).norm()
        for name, off in wrong.items():
            bend = torch.linalg.vector_norm(ahead.gradient[name] - 2 * here[name] + behind.gradient[name])
            if not bend > max(min(off, 1.0) / 4, eps**0.25) * slopes[name] + rounding:
                return False
        return True

    def _around(self, w: Tensors, d: Tensors) -> float:
        def moved(sign: int) -> Evaluated:
            return self.evaluate({name: p + sign * d[name] if name in d else p for name, p in w.items()})

        return _lost_slope(moved(1), moved(-1))


def _lost_slope(first: Evaluated, second: Evaluated) -> float:
    """(change of the loss − what the gradients say) / distance; 0 if that is small beside both, or only rounding."""
    change, said, square = first.loss - second.loss, 0.0, 0.0
    for name, g in first.gradient.items():
        step = first.w[name] - second.w[name]
        said += float(((g + second.gradient[name]) / 2 * step).sum())
        square += float(step.square().sum())
    eps = torch.finfo(next(iter(first.w.values())).dtype).eps
    noise = max(_LEAST * max(abs(change), abs(said)), _ROUNDING * eps * max(abs(first.loss), abs(second.loss)))
    return (change - said) / math.sqrt(square) if abs(change - said) > noise else 0.0


def _are_one(first: float, second: float) -> bool:
    """Whether two slopes agree: at an optimum, what is left of the third order grows with the square of the width."""
    return first != 0 and abs(first - second) <= _AGREEMENT * abs(first)


def refusal(subject: str, names: list[str]) -> str:
    """The message for parameters whose gradient is lost."""
    some = ", ".join(map(repr, names[:3])) + " and others" * (len(names) > 3)
    return (
        f"{subject} has a gradient with respect to {some} that is not the derivative of the loss: forward reads a "
        "parameter without its gradient (detach, .data, item(), no_grad), or changes gradients on their way, as a "
        "straight-through or reversed gradient does. A hypergradient would leave out this part. Compute with the "
        "parameter itself; or, if it is meant to be a constant, call requires_grad_(False) on it, or make it a buffer."
    )
