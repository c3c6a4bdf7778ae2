"""Coefficients of a solver: numbers, schedules, or hyperparameters by name; one for all tensors, or one for each."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.solver.schedule import Schedule

Coefficient = float | str | Schedule
"""A number, the name of a hyperparameter, or a schedule over either."""


@dataclass(frozen=True)
class Range:
    """Where a coefficient may lie: > `above`, ≥ `least` and < `below`, each where given; or be None if `optional`."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    optional: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range; NaN does not."""
        return (
            value == value
            and (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        signs = {">": self.above, "≥": self.least, "<": self.below}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in signs.items() if bound is not None)


def ranged(
    default: float | None, *, above: float | None = None, least: float | None = None, below: float | None = None
) -> Any:
    """The field of a solver that holds a coefficient, and where its values may lie."""
    return field(default=default, metadata={"range": Range(above, least, below, default is None)})


def coefficient(value: Coefficient, hparams: Tensors, t: int) -> float | Tensor:
    """The value in step t of a run: a number or a tensor of shape () for all tensors, or (G,) for G groups.

    The first axis of a hyperparameter is the step; one with a single row, (1, G), holds for every step, and a schedule
    of T steps starts anew after them.
    """
    if isinstance(value, Schedule):
        return value.factor(t) * coefficient(value.base, hparams, t)
    if not isinstance(value, str):
        return value
    tensor = hparams[value]
    if tensor.ndim == 0:
        return tensor
    return tensor[0 if len(tensor) == 1 else t % len(tensor)]


def one_for_all(value: Coefficient, hparams: Tensors, t: int) -> float | None:
    """The value in step t as a number; None where it differs by group."""
    now = coefficient(value, hparams, t)
    return None if isinstance(now, Tensor) and now.ndim > 0 else float(now)


def scaled_sum(x: Tensor, c: float | Tensor, y: Tensor) -> Tensor:
    """x + c y in one operation, with a coefficient c that is a number or of shape ()."""
    return torch.addcmul(x, c, y) if isinstance(c, Tensor) else x.add(y, alpha=c)


def root(value: Coefficient) -> float | str:
    """The number or name at the bottom of a coefficient."""
    return root(value.base) if isinstance(value, Schedule) else value


@lru_cache
def groups_of(names: tuple[str, ...], patterns: tuple[str, ...] | None) -> tuple[int, ...]:
    """The group of each tensor: its own without patterns, else the one whose glob pattern its name matches.

    Raises:
        ValueError: if a name matches none of the patterns or several, or a pattern matches no name.
    """
    if patterns is None:
        return tuple(range(len(names)))
    found: list[int] = []
    for name in names:
        matches = [index for index, pattern in enumerate(patterns) if fnmatchcase(name, pattern)]
        if len(matches) != 1:
            met = " and ".join(repr(patterns[index]) for index in matches) or "none"
            raise ValueError(
                f"Each tensor must match one pattern of groups = {_listed(patterns)}, but {name!r} matches {met}; the "
                f"tensors are {_listed(names)}."
            )
        found += matches
    unused = [pattern for index, pattern in enumerate(patterns) if index not in found]
    if unused:
        raise ValueError(
            f"Each pattern of groups must match a tensor, but {_listed(unused)} matches none of {_listed(names)}."
        )
    return tuple(found)


def require_fitting(
    where: str, value: Coefficient, limits: Range, hparams: Tensors, num_steps: int, num_groups: int
) -> None:
    """Require that a coefficient fits a run of `num_steps` inner steps with `num_groups` groups of tensors.

    Args:
        where: what an error calls the coefficient.
        value: the coefficient.
        limits: where its values may lie.
        hparams: λ.
        num_steps: T, ≥ 0.
        num_groups: G, ≥ 1.

    Raises:
        ValueError: if a schedule is longer than the run, a name is that of no hyperparameter, or its shape is none of
            (), (T,), (1, G) and (T, G), or one of its values is out of range.
    """
    layer = value
    while isinstance(layer, Schedule):
        if layer.length > num_steps > 0:
            raise ValueError(
                f"{where} = {layer} takes {layer.length} steps, but training has {num_steps}, which would cut it off; "
                f"shorten it, or raise inner_steps to {layer.length}."
            )
        layer = layer.base
    if not isinstance(layer, str):
        return
    where = f"{where} = {layer!r}"
    if layer not in hparams:
        raise ValueError(
            f"{where} is neither a number nor the name of a hyperparameter; the problem has "
            f"{', '.join(sorted(hparams))}."
        )
    shape = tuple(hparams[layer].shape)
    if shape not in ((), (num_steps,), (1, num_groups), (num_steps, num_groups)):
        raise ValueError(
            f"{where} has shape {shape}, but a coefficient is of shape () for one value, of shape ({num_steps},) for "
            f"one per inner step, of shape (1, {num_groups}) for one per group of tensors, or of shape ({num_steps}, "
            f"{num_groups}) for one per step and group; without `groups`, each tensor is a group of its own."
        )
    least, most = hparams[layer].min().item(), hparams[layer].max().item()
    for met in (least, most):
        if not limits.holds(met):
            raise ValueError(
                f"{where} must be {limits}, but it holds {met:.4g}; give the hyperparameter a constraint that keeps it "
                "there, such as hg.positive, hg.unit_interval or hg.interval(a, b)."
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
