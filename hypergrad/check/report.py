"""The result of a check, for programs and for people."""

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

AGREES = "agrees"
DISAGREES = "disagrees"


@dataclass(frozen=True)
class Row:
    """One estimator along one direction.

    Attributes:
        estimator: its name.
        direction: index of the direction, from 0; None where the estimator raised an error.
        derivative: the directional derivative ⟨dF/du, d⟩ that the estimator gives.
        witness: the same by central differences.
        uncertainty: how far `witness` may be off, ≥ 0.
        relative_error: |derivative − witness| / |witness|.
        error_estimate: the estimator's own error bar along this direction, ≥ 0; NaN where it has none.
        num_matvecs: Hessian products of the estimate, which is the same for every direction.
        seconds: wall time of the estimate.
        verdict: "agrees", "disagrees", or "error: …" where the estimate or the witness is missing.
    """

    estimator: str
    direction: int | None
    derivative: float
    witness: float
    uncertainty: float
    relative_error: float
    error_estimate: float
    num_matvecs: int
    seconds: float
    verdict: str


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        rows: one per estimator and direction, or one per estimator that raised an error.
        tol: the relative error that is allowed.
        spread: the largest difference between two estimators along one direction, relative to the larger derivative.
    """

    rows: tuple[Row, ...]
    tol: float
    spread: float

    @property
    def ok(self) -> bool:
        """Whether every row agrees."""
        return all(row.verdict == AGREES for row in self.rows)

    def table(self) -> "Table":
        """The rows as a table.

        "off by" is the relative error, "bar" the estimator's own estimate of it, both relative to the witness, and
        "cost" counts Hessian products.
        """
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        # Without edges, so that it fits 80 columns.
        table = Table(title="hypergradients against retraining", title_justify="left", box=SIMPLE_HEAD, padding=0)
        table.show_edge = False
        names = ("estimator", "along", "derivative", "witness", "±", "off by", "bar", "cost", "s", "verdict")
        for name in names:
            table.add_column(name, no_wrap=True)
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    def print(self, console: "Console | None" = None) -> None:
        """Print the table and what it comes to; on standard output when `console` is None."""
        from rich.console import Console

        console = console or Console()
        console.print(self.table())
        for message in dict.fromkeys(f"{row.estimator}: {row.verdict}" for row in self.rows if _is_error(row)):
            console.print(message, highlight=False, markup=False)
        if len({row.estimator for row in self.rows}) > 1:
            console.print(f"largest difference between estimators  {self.spread:.1e}", highlight=False)
        count = sum(row.verdict == AGREES for row in self.rows)
        console.print(
            f"{count} of {len(self.rows)} agree with the witness within {self.tol:.0e}, or its ±", highlight=False
        )


def _is_error(row: Row) -> bool:
    return row.verdict not in (AGREES, DISAGREES)


def _cells(row: Row) -> tuple[str, ...]:
    if row.direction is None:
        return (row.estimator, *[""] * 8, "error")
    return (
        row.estimator,
        f"d{row.direction}",
        f"{row.derivative:.6g}",
        f"{row.witness:.6g}",
        f"{row.uncertainty:.0e}",
        f"{row.relative_error:.0e}",
        f"{row.error_estimate / abs(row.witness):.0e}" if row.witness and not isnan(row.error_estimate) else "",
        str(row.num_matvecs),
        f"{row.seconds:.2f}",
        "error" if _is_error(row) else row.verdict,
    )
