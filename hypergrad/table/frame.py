"""Runs as a data frame of pandas."""

from pathlib import Path
from typing import TYPE_CHECKING

from hypergrad.table.read import found_runs
from hypergrad.table.rows import rows_of_runs, rows_over_seeds

if TYPE_CHECKING:
    from pandas import DataFrame


def read_runs(*folders: str | Path, over_seeds: bool = False) -> "DataFrame":
    """The runs in folders, and in the folders below them, such as that of a sweep, as a data frame.

    Args:
        folders: of runs, or that hold runs.
        over_seeds: one row for each setting, with means over its finished runs and standard errors, instead of one row
            for each run.

    Returns:
        For each run its path, what differs between the command lines, its status ("finished", "failed", "interrupted",
        or "unfinished"), losses and metrics at the first, best and last step, such as `dev_best`, its cost, and λ at
        the best step, such as `hparam/l2` or `hparam/l2/0.weight`. For each setting the means under the same names, and
        their standard errors s/√n as `dev_best_se`.

    Raises:
        ModuleNotFoundError: if pandas is not installed.

    Also raised, by what it calls: FileNotFoundError if a folder holds no run; ValueError if a file cannot be read.
    """
    try:
        from pandas import DataFrame
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}. A data frame needs pandas: pip install 'torch-hypergrad[table]'."
        ) from None
    paths = [Path(folder) for folder in folders]
    runs = found_runs(paths)
    return DataFrame(rows_over_seeds(runs) if over_seeds else rows_of_runs(runs, paths))
