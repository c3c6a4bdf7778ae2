"""Influences as files for other programs, and groups of examples from such files."""

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMATS = ("csv", "parquet")


def require_format(kind: str) -> None:
    """Require a format that can be written here.

    Raises:
        ValueError: if there is no such format.
        ImportError: if a package for it is missing.
    """
    if kind not in FORMATS:
        raise ValueError(f"table must be one of {', '.join(FORMATS)}, but it is {kind!r}.")
    missing = [name for name in ("pandas", "pyarrow") if kind == "parquet" and find_spec(name) is None]
    if missing:
        raise ImportError(
            f"table=parquet needs {' and '.join(missing)}: pip install 'torch-hypergrad[parquet]', or leave table out."
        )


def write_table(folder: Path, name: str, columns: Mapping[str, Sequence[Any]], kind: str) -> Path:
    """Write columns of the same length; the path of the file.

    Args:
        folder: of the file.
        name: without its ending.
        columns: by name.
        kind: one of `FORMATS`.
    """
    path = folder / f"{name}.{kind}"
    if kind == "parquet":
        import pandas

        pandas.DataFrame(columns).to_parquet(path, index=False)
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read_groups(given: str, targets: Tensor) -> tuple[list[str], Tensor]:
    """The names of groups of train examples, sorted, and the number of that of each example, shape (n,).

    Args:
        given: "target", for a group of each target; or a CSV file with a header and a line for each train example, in
            the order of the train part, with ":column" for one of several columns.
        targets: of train.

    Raises:
        ValueError: if there is no such file, it has another number of lines, or no such column.
    """
    if given == "target":
        values = [shown(y) for y in targets]
    else:
        name, _, column = given.partition(":")
        if not Path(name).is_file():
            raise ValueError(
                f"groups must be target, or a CSV file with a line for each train example, but there is no file {name}."
            )
        header, rows = _read(Path(name))
        column = column or (header[0] if len(header) == 1 else "")
        if column not in header:
            raise ValueError(
                f"groups={name}:<column> must name one of the columns {', '.join(header)}, but it is {column!r}."
            )
        values = [row[column] for row in rows]
        if len(values) != len(targets):
            raise ValueError(
                f"{name} must have a line for each of the {len(targets)} train examples after its header, but it has "
                f"{len(values)}."
            )
    names = sorted(set(values))
    number = {name: k for k, name in enumerate(names)}
    return names, torch.tensor([number[value] for value in values])


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the lines of a CSV file.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            return list(rows.fieldnames or ()), list(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"groups={path} must be a CSV file in UTF-8, but it cannot be read: {error}") from None


def shown(target: Tensor) -> str:
    """A target as text."""
    return " ".join(f"{value:.6g}" for value in target.reshape(-1).tolist())
