"""A table of runs on the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hypergrad.table.rows import Row

_UNLIMITED = 100_000
"""Characters in a line: more than any table has."""


def print_table(
    rows: Sequence[Row],
    headings: Mapping[str, str],
    title: str,
    *,
    optional: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print columns of rows under their headings.

    A terminal gets the columns that fit into its width; a file or a pipe gets all of them, at their full width.

    Args:
        rows: values by column; one that a row lacks is empty.
        headings: by column, in order. The standard error, in `NAME_se`, is shown with the column `NAME`.
        title: above the table.
        optional: the columns to leave out, the first one first, where they do not fit.
        console: where to print; standard output when None.
    """
    console, shown = console or Console(), dict(headings)
    if console.is_terminal:
        for name in optional:
            if _width(_table(rows, shown, title), console) <= console.width:
                break
            shown.pop(name, None)
    else:
        console.width = _UNLIMITED
    console.print(_table(rows, shown, title))
    if len(shown) < len(headings):
        missing = ", ".join(heading for name, heading in headings.items() if name not in shown)
        console.print(f"not shown in this width: {missing}", highlight=False, markup=False)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(width=_UNLIMITED)).maximum


def _table(rows: Sequence[Row], headings: Mapping[str, str], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for name, heading in headings.items():
        is_text = any(isinstance(row.get(name), str) for row in rows)
        table.add_column(escape(heading), no_wrap=True, justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*(escape(_with_error(row, name)) for name in headings))
    return table


def _with_error(row: Row, name: str) -> str:
    value, error = row.get(name), row.get(f"{name}_se")
    if value is not None and isinstance(error, float) and error == error:
        # two digits of the error, and the value to the same place
        places = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 0
        return f"{value:.{places}f} ± {error:.{places}f}" if error > 0 else f"{_shown(value)} ± 0"
    return _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
