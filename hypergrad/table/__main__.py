"""The command line: `python -m hypergrad.table multirun/ridge/… [more folders] [--over-seeds] [--csv FILE]`."""

import argparse
import csv
import re
import sys
from pathlib import Path

from hypergrad.cli.command_help import TABLE
from hypergrad.cli.output import quiet_end
from hypergrad.core.errors import message
from hypergrad.table.printed import print_table
from hypergrad.table.read import found_runs
from hypergrad.table.recorded_run import FINISHED
from hypergrad.table.rows import Row, columns, rows_of_runs, rows_over_seeds

_MAIN = ("dev_best", "test_best")
_OPTIONAL = ("products", "gradients", "seconds", "dev_first", "test_last", "steps", "dev_last", "test_best")
"""Columns that a narrow terminal does not show, the first one first, after the metrics other than the losses."""
_HIDDEN = ("best_step", "test_first", "inner_", "converged", "hparam/", "error")
"""The beginnings of the names of columns that are in the CSV file only."""


@quiet_end()
def main(arguments: list[str] | None = None) -> None:
    """Print one row for each run, and write all columns as CSV.

    Also raised, by what it calls: SystemExit with what went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hypergrad.table",
        description=f"{TABLE.summary}.",
        epilog=TABLE.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders of runs, or folders that hold runs, such as a sweep"
    )
    parser.add_argument("--over-seeds", action="store_true", help="one row a setting: mean ± standard error over seeds")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there too, with all of its columns")
    chosen = parser.parse_args(arguments)
    try:
        runs = found_runs(chosen.runs)
        rows = rows_over_seeds(runs) if chosen.over_seeds else rows_of_runs(runs, chosen.runs)
        names = columns(rows)
        if chosen.over_seeds:  # the name of a setting has what differs
            del names[1 : names.index("runs")]
        shown = {name: name.replace("_", " ") for name in names if _is_printed(name, rows)}
        further = [name for name in shown if name.endswith("_best") and name not in _MAIN]
        print_table(_short(rows), shown, f"{len(runs)} run{'s'[: len(runs) > 1]}", optional=[*further, *_OPTIONAL])
        for run in runs:
            if run.status != FINISHED and run.summary.get("error"):
                print(f"{run.folder}: {run.summary['error']}")
        if chosen.csv is not None:
            _write(chosen.csv, rows)
            print(chosen.csv)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {message(error)}")


def _short(rows: list[Row]) -> list[Row]:
    """The rows with the number of a job of a sweep instead of the name of its folder, which repeats its settings."""
    jobs = [re.fullmatch(r"(.*?/)?(\d+)_[^/]*=[^/]*", str(row.get("run"))) for row in rows]
    return [row | {"run": f"{job[1] or ''}{job[2]}"} if job else row for row, job in zip(rows, jobs, strict=True)]


def _is_printed(name: str, rows: list[Row]) -> bool:
    """Whether a column is on the terminal: of metrics only the value at the best step, and no standard errors."""
    base, _, when = name.rpartition("_")
    if when == "se" or name.startswith(_HIDDEN):
        return False
    is_end = when in ("first", "last") and f"{base}_best" in columns(rows)
    return not is_end or base in ("dev", "test")


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns(rows))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
