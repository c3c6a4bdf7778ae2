"""The numbers of a run as rows of a table."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors


def table_rows(
    history: Sequence[dict[str, float]], trajectory: Tensors, names: Callable[[str], Sequence[str]]
) -> list[dict[str, float]]:
    """The rows of a history, with a column `hparam/NAME/ENTRY` for each entry of a hyperparameter.

    Args:
        history: a row for each record; a scalar hyperparameter already has a column there.
        trajectory: hyperparameters over the records, shape (records, …).
        names: of the entries of a hyperparameter.
    """
    rows = [dict(row) for row in history]
    for name, path in trajectory.items():
        if path.ndim == 1:
            continue
        flat = path.reshape(len(path), -1)
        columns = [f"hparam/{name}/{entry}" for entry in names(name)]
        for row, values in zip(rows, flat.tolist(), strict=True):
            row.update(zip(columns, values, strict=True))
    return rows


def recorded_rows(
    history: Sequence[dict[str, float]], paths: Mapping[str, Sequence[Tensor]]
) -> Iterator[dict[str, Any]]:
    """The rows of a history, with each hyperparameter of one or more dimensions as a (nested) list `hparam/NAME`.

    Args:
        history: a row for each record.
        paths: hyperparameters, one tensor for each record.
    """
    for i, row in enumerate(history):
        yield row | {f"hparam/{name}": path[i].tolist() for name, path in paths.items() if path[i].ndim > 0}


def as_csv(rows: list[dict[str, float]]) -> str:
    """Rows as CSV with every digit; a number that a row does not have is left empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_frame(rows: list[dict[str, float]]) -> Any:
    """Rows as a pandas DataFrame.

    Raises:
        ImportError: if pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "A data frame needs pandas: pip install 'torch-hypergrad[table]'. Result.rows() needs nothing."
        ) from error
    return pandas.DataFrame(rows)
