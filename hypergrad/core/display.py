"""Objects as text that fits a screen."""

import textwrap
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypergrad.core.hyperparameter import shown

_COLUMNS, _MOST_PARTS = 80, 16
"""Parts are short, so that this many take less than 24 lines."""


def on_screen(name: str, parts: Sequence[str]) -> str:
    """`name(part, part, …)` in lines of 80 columns, broken between parts; of many parts only the first ones."""
    more = len(parts) - _MOST_PARTS
    kept = [*parts[:_MOST_PARTS], f"… and {more} more"] if more > 0 else list(parts)
    short = [textwrap.shorten(part, _COLUMNS - 8, placeholder="…") for part in kept]
    lines = [f"{name}("]
    for part, end in zip(short, [","] * (len(short) - 1) + [")"], strict=True):
        gap = "" if lines == [f"{name}("] else " "
        if len(lines[-1]) + len(gap + part + end) <= _COLUMNS:
            lines[-1] += gap + part + end
        else:
            lines.append(f"    {part}{end}")
    return "\n".join(lines)


def counted(number: int, what: str) -> str:
    """A number of things, such as "1 outer step" and "2 outer steps"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def assigned(values: Mapping[str, Tensor | float]) -> list[str]:
    """`name = value` for each number or tensor, with the range of its entries if there are many."""
    return [f"{name} = {shown(torch.as_tensor(value))}" for name, value in values.items()]
