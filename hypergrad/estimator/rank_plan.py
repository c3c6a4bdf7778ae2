"""What one hypergradient costs each of several processes, before a run."""

from collections.abc import Sequence
from dataclasses import dataclass

EXACT, AT_MOST, ABOUT = "", "≤", "~"
"""How sure a number is."""


@dataclass(frozen=True)
class Effort:
    """What a piece of work costs a rank.

    Attributes:
        all_reduces: how many.
        numbers: in all of them together.
        flops: floating-point operations of matrix products and convolutions, on the rank's own examples.
    """

    all_reduces: int = 0
    numbers: int = 0
    flops: int = 0

    def __add__(self, other: "Effort") -> "Effort":
        return Effort(self.all_reduces + other.all_reduces, self.numbers + other.numbers, self.flops + other.flops)

    def __mul__(self, times: int) -> "Effort":
        return Effort(times * self.all_reduces, times * self.numbers, times * self.flops)


@dataclass(frozen=True)
class Part:
    """A part of an estimate, which is repeated.

    Attributes:
        name: what it is.
        times: how often.
        each: what it costs once.
        sure: "" if `times` is exact, "≤" if it is the most, "~" if it is an estimate, as with line searches.
    """

    name: str
    times: int
    each: Effort
    sure: str = EXACT

    @property
    def whole(self) -> Effort:
        """What it costs in all."""
        return self.each * self.times


@dataclass(frozen=True)
class RankPlan:
    """What one estimate costs each of P ranks that share its batches by `DataParallel`; `print` shows a table.

    Attributes:
        world: P, ≥ 1.
        parts: what is done, in order.
        memory: bytes of graphs, states and vectors that exist at the same time on a rank, at most, without the data,
            the parameters and what a gradient needs.
        itemsize: bytes of a number.
        first: what the first estimate of a run costs instead, about, if it also finds steps; None if it is like the
            others.
    """

    world: int
    parts: Sequence[Part]
    memory: int
    itemsize: int
    first: Effort | None = None

    @property
    def total(self) -> Effort:
        """What one estimate costs, at most if a part is so."""
        return sum((part.whole for part in self.parts), Effort())

    @property
    def sure(self) -> str:
        """How sure the total is, as in `Part`."""
        met = {part.sure for part in self.parts if part.times}
        return ABOUT if ABOUT in met else AT_MOST if AT_MOST in met else EXACT

    @property
    def sent(self) -> float:
        """Bytes that a rank sends by all-reduces in a ring, 2 (P − 1)/P for each byte that is reduced."""
        return 2 * (self.world - 1) / self.world * self.total.numbers * self.itemsize

    def __str__(self) -> str:
        rows = [("", "times", "all-reduces", "numbers", "GFLOP")]
        rows += [(p.name, _said(p.sure, f"{p.times:,}"), *_shown(p.sure, p.whole)) for p in self.parts if p.times > 0]
        if len(rows) > 2:
            rows.append(("in all", "", *_shown(self.sure, self.total)))
        if self.first is not None:
            rows.append(("instead, at first", "1", *_shown(ABOUT, self.first)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"one hypergradient on each of {self.world} ranks" if self.world > 1 else "one hypergradient", ""]
        for name, *cells in rows:
            padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
            lines.append("  ".join([f"{name:<{widths[0]}}", *padded]).rstrip())
        sent = f", and sends {_said(self.sure, f'{self.sent / 1e6:.3g}')} MB" if self.world > 1 else ""
        return "\n".join([*lines, "", f"a rank keeps {self.memory / 1e6:.3g} MB besides w and the data{sent}"])


def _shown(sure: str, effort: Effort) -> tuple[str, str, str]:
    numbers = f"{effort.all_reduces:,}", f"{effort.numbers:,}", f"{effort.flops / 1e9:.3g}"
    calls, entries, flops = (_said(sure, text) for text in numbers)
    return calls, entries, flops


def _said(sure: str, number: str) -> str:
    return f"{sure} {number}" if sure else number
