"""Progress of a loop over blocks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_LINES = 10
"""Plain lines in a run, as of `ProgressBar`."""


def tracked(total: int, unit: str, console: "Console", done: int = 0) -> Iterator[int]:
    """The numbers from 0 to total − 1, with a bar on a terminal, and else plain lines, after each of them.

    Args:
        total: ≥ 1.
        unit: what they count.
        console: where to draw.
        done: how many of them take no time, for the estimate of the time left.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(unit), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn()
    stride = max(1, total // _LINES)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=done)
        for number in range(total):
            yield number
            bar.update(task, completed=max(done, number + 1))
            if not console.is_terminal and ((number + 1) % stride == 0 or number + 1 == total) and number >= done:
                console.print(f"{unit} {number + 1}/{total}", highlight=False)
