"""The history of a run on disk: each record is written once, and the states of the run refer to it."""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
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
        until: the last step of an earlier part of the run that stays; later ones are dropped by the first `append`.
    """

    def __init__(self, folder: Path, until: int) -> None:
        self.path = folder / _NAME
        lines = self.path.read_bytes().splitlines(keepends=True) if until >= 0 and self.path.exists() else []
        kept = list(takewhile(lambda line: _is_until(line, until), lines))
        self.rows, self._end = len(kept), sum(map(len, kept))

    def append(self, history: Sequence[dict[str, float]], trajectory: Mapping[str, Sequence[torch.Tensor]]) -> None:
        """Write the records that are not in the file yet, and force them to disk."""
        lines = [
            {"scalars": row, "trajectory": {name: path[self.rows + i].tolist() for name, path in trajectory.items()}}
            for i, row in enumerate(history[self.rows :])
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        with writing(self.path), self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(self._end)  # what an append that failed has left
            file.seek(self._end)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.rows, self._end = self.rows + len(lines), self._end + len(text)


def _is_until(line: bytes, step: int) -> bool:
    """Whether a line is whole, and of a step that is not after `step`."""
    return line.endswith(b"\n") and json.loads(line)["scalars"]["step"] <= step


def read_history(
    folder: Path, rows: int, like: Tensors
) -> tuple[list[dict[str, float]], dict[str, list[torch.Tensor]]]:
    """The scalars of the first records, and the trajectory of the hyperparameters.

    Args:
        folder: the folder of the run.
        rows: the number of records.
        like: hyperparameters, with the shapes and dtypes of the trajectory.

    Raises:
        CheckpointError: if the file holds fewer records.
    """
    path = folder / _NAME
    lines = path.read_text().splitlines()[:rows] if path.exists() else []
    if len(lines) < rows:
        raise CheckpointError(
            f"The state needs the first {rows} records of its run, but {path} holds {len(lines)}; a state file goes "
            f"with the {_NAME} beside it."
        )
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    # Those that all records have: with another number of processes, others may be spread over them.
    names = [name for name in found[0]["trajectory"] if all(name in one["trajectory"] for one in found)]
    paths = {
        name: [torch.tensor(one["trajectory"][name], dtype=like[name].dtype).reshape(like[name].shape) for one in found]
        for name in names
    }
    return [one["scalars"] for one in found], paths
