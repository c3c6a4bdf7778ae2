"""Coefficients of a solver: numbers, schedules, or hyperparameters by name; one for all tensors, or one for each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

from torch import Tensor

from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.solver.schedule import Schedule

Coefficient = float | str | Schedule
"""A number, the name of a hyperparameter, or a schedule over either."""

Values = Mapping[str, float | Tensor]
"""The coefficients in one step by field: a number or a tensor of shape () for all tensors, or (G,) for G groups."""

Coefficients = Mapping[str, Mapping[str, float | Tensor]]
"""The coefficients in one step by field and then by parameter tensor: numbers, or tensors of shape (), or with an entry
for each of the parameter if the groups are single entries."""

ENTRY = "entry"
"""The groups of a solver in which each entry of each parameter tensor is a group of its own."""

Groups = tuple[str, ...] | Literal["entry"] | None
"""Patterns, one for each group; or each entry a group of its own; or None, each tensor a group of its own."""


@dataclass(frozen=True)
class Range:
    """The range of a coefficient: > `above`, ≥ `least` and < `below`, if given; it may be None if `optional`."""

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
    """The field of a solver that holds a coefficient, with the range in which its values are checked to lie.

    Args:
        default: its value unless another is given; with None, it may be None.
        above: values are > this.
        least: values are ≥ this.
        below: values are < this.
    """
    return field(default=default, metadata={"range": Range(above, least, below, default is None)})


def coefficient(value: Coefficient, hparams: Tensors, t: int) -> float | Tensor:
    """The value in step t of a run: a number or a tensor of shape () for all tensors, or (G,) for G groups.

    The first axis of a hyperparameter is the step. A single row, (1, G), holds for every step, and a schedule of T
    steps starts again after T steps.
    """
    if isinstance(value, str):
        tensor = hparams[value]
        return tensor if tensor.ndim == 0 else tensor[0 if len(tensor) == 1 else t % len(tensor)]
    # Checked first, because most are floats and an instance check of an abstract class is slow.
    if isinstance(value, float) or not isinstance(value, Schedule):
        return value
    return value.factor(t) * coefficient(value.base, hparams, t)


def by_tensor(value: float | Tensor, params: Tensors, groups: Groups) -> dict[str, float | Tensor]:
    """The value in one step, for all tensors or for each group, for each of the tensors; see `groups_of`."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return dict.fromkeys(params, value)
    if groups == ENTRY:
        return {**unflatten(value, params)}
    names, entries = tuple(params), value.unbind()
    return {name: entries[group] for name, group in zip(names, groups_of(names, groups), strict=True)}


def num_groups(params: Tensors, groups: Groups) -> int:
    """G: how many groups there are.

    Also raised, by what it calls: ValueError if the patterns do not fit the names.
    """
    if groups == ENTRY:
        return sum(p.numel() for p in params.values())
    return 1 + max(groups_of(tuple(params), groups))


def one_for_all(value: float | Tensor) -> float | None:
    """The value of a coefficient in one step as a number; None if it differs by group."""
    return None if isinstance(value, Tensor) and value.ndim > 0 else float(value)


def root(value: Coefficient) -> float | str:
    """The number or name at the bottom of a coefficient."""
    return root(value.base) if isinstance(value, Schedule) else value


@lru_cache
def groups_of(names: tuple[str, ...], patterns: tuple[str, ...] | None) -> tuple[int, ...]:
    """The group of each tensor: the index of the pattern that its name matches; without patterns, its own index.

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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
