"""The influence of groups of train examples."""

from pathlib import Path
from typing import TYPE_CHECKING

from hypergrad.influence.examples import Influences
from hypergrad.influence.scores import group_scores
from hypergrad.influence.tables import read_groups, write_table

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 20
"""Groups to print, the most harmful ones."""


def write_groups(examples: Influences, given: str, folder: Path, kind: str, console: "Console") -> None:
    """Write the change of the dev loss without each group of train examples, to first order, and print it.

    Args:
        examples: the influence of each.
        given: the groups, see `read_groups`.
        folder: of the file `groups`.
        kind: of the file.
        console: prints the groups.

    Also raised, by what it calls: ValueError if the groups cannot be read.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    names, number = read_groups(given, examples.targets)
    change = group_scores(examples.change.cpu(), number)[1]
    sizes = number.bincount().tolist()
    columns = {"group": names, "examples": sizes, "dev_loss_change_without": change.tolist()}
    path = write_table(folder, "groups", columns, kind)
    table = Table("group", "examples", "dev loss without it", title="groups", title_justify="left")
    table.box, table.show_edge = SIMPLE_HEAD, False
    for k in change.argsort().tolist()[:_SHOWN]:
        table.add_row(names[k], str(sizes[k]), f"{change[k]:+.3e}")
    console.print(table)
    console.print(str(path), soft_wrap=True, highlight=False)
