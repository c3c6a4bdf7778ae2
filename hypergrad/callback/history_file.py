"""The history of a run on disk: each record is written once, and the states of the run refer to it."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hypergrad.callback.atomic import writing
from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import CheckpointError

_NAME = "history.jsonl"


class HistoryFile:
    """`history.jsonl` in the folder of a run, one line per record, to which lines are appended.

    A line holds the scalars of a record, and its hyperparameters that the trajectory keeps. Unlike in `metrics.jsonl`,
    numbers that are not finite are kept, in Python's notation.

    Args:
        folder: the folder of the run.
        resumes: whether lines of an earlier part of the run stay. The first `append` drops those from the first one
            on that is damaged, or is not of the history that it is given.

    Attributes:
        path: of the file.
    """

    def __init__(self, folder: Path, *, resumes: bool) -> None:
        self.path = folder / _NAME
        self._earlier = self.path.read_bytes().splitlines(keepends=True) if resumes and self.path.exists() else []
        self._known = _Part()

    @property
    def rows(self) -> int:
        """The number of lines."""
        return self._known.rows

    @property
    def checksum(self) -> int:
        """CRC-32 of the lines."""
        return self._known.checksum

    def append(self, history: Sequence[dict[str, float]], trajectory: Mapping[str, Sequence[torch.Tensor]]) -> None:
        """Write the records that are not in the file yet, and force them to disk."""
        if self._earlier:
            self._known, self._earlier = _common(self._earlier, history), []
        known = self._known
        lines = [
            {"scalars": row, "trajectory": {name: path[known.rows + i].tolist() for name, path in trajectory.items()}}
            for i, row in enumerate(history[known.rows :])
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        with writing(self.path), self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(known.size)  # what an append that failed has left
            file.seek(known.size)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._known = known.longer(text, len(lines))  # at once, as a signal may interrupt anywhere


@dataclass(frozen=True)
class _Part:
    """The beginning of a file: its lines, its bytes, and their CRC-32."""

    rows: int = 0
    size: int = 0
    checksum: int = 0

    def longer(self, text: bytes, rows: int) -> "_Part":
        return _Part(self.rows + rows, self.size + len(text), zlib.crc32(text, self.checksum))


def _common(lines: Sequence[bytes], history: Sequence[dict[str, float]]) -> _Part:
    """The lines, from the first one on, that are those of a history."""
    known = _Part()
    for line, row in zip(lines, history, strict=False):
        if not line.endswith(b"\n") or _scalars(line) != json.dumps(row):
            break
        known = known.longer(line, 1)
    return known


def _scalars(line: bytes) -> str:
    """The scalars of a line, as JSON, where NaN is NaN; empty if the line is damaged."""
    try:
        return json.dumps(json.loads(line)["scalars"])
    except (ValueError, KeyError, TypeError):
        return ""


def read_history(
    folder: Path, rows: int, like: Tensors, checksum: int | None = None
) -> tuple[list[dict[str, float]], dict[str, list[torch.Tensor]]]:
    """The scalars of the first records, and the trajectory of the hyperparameters.

    Args:
        folder: the folder of the run.
        rows: the number of records.
        like: hyperparameters, with the shapes and dtypes of the trajectory.
        checksum: CRC-32 of their lines; None if it is not known.

    Raises:
        CheckpointError: if the file holds fewer records, or others.
    """
    path = folder / _NAME
    lines = path.read_bytes().splitlines(keepends=True)[:rows] if path.exists() else []
    if len(lines) < rows:
        raise CheckpointError(
            f"The state needs the first {rows} records of its run, but {path} holds {len(lines)}; a state file goes "
            f"with the {_NAME} beside it."
        )
    damaged = f"The first {rows} records in {path} are damaged, or not those that the state was saved with."
    if checksum not in (None, zlib.crc32(b"".join(lines))):
        raise CheckpointError(damaged)
    try:
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    except ValueError:
        raise CheckpointError(damaged) from None
    # Those that all records have: with another number of processes, others may be spread over them.
    names = [name for name in found[0]["trajectory"] if all(name in one["trajectory"] for one in found)]
    paths = {
        name: [torch.tensor(one["trajectory"][name], dtype=like[name].dtype).reshape(like[name].shape) for one in found]
        for name in names
    }
    return [one["scalars"] for one in found], paths
