"""The numbers of a run as lines of JSON."""

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypergrad.callback.atomic import replacing, writing
from hypergrad.callback.base import MOST_ENTRIES, Callback, Record, Run, claim


class JSONLines(Callback):
    """Writes `metrics.jsonl`, one line per outer step, each on disk before the next step begins.

    A line holds `step`, every scalar by its TensorBoard tag, and each vector hyperparameter of at most 1000 entries in
    full under `hparam/NAME`, as a (nested) list. `labels.json` beside it holds the names of entries, by
    hyperparameter, if there are any.

    Args:
        folder: the folder of the run; created when missing.
    """

    _writes = True  # see `Run.is_first`

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path, self._labels = self.folder / "metrics.jsonl", self.folder / "labels.json"

    def writes_to(self) -> Sequence[Path]:
        return (self.folder,)

    def on_start(self, run: Run) -> None:
        self._writes, self._labelled = run.is_first, False
        if not self._writes:
            return
        claim(self.path, run)
        if run.resumed_at is not None:
            self._restore(run)

    def on_step(self, record: Record) -> None:
        if not self._writes:
            return
        row: dict[str, object] = {"step": record.step, **record.scalars()}
        for name, value in record.hparams.items():
            if value.ndim > 0 and value.numel() <= MOST_ENTRIES:
                row[f"hparam/{name}"] = value.tolist()
        if record.labels and not self._labelled:
            names = {name: list(labels) for name, labels in record.labels.items()}
            with replacing(self._labels) as file:
                file.write((json.dumps(names) + "\n").encode())
            self._labelled = True
        with writing(self.path), self.path.open("a") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())

    def _restore(self, run: Run) -> None:
        """Keep the lines up to the state from which the run resumes; those after it are written again.

        A line that is missing, or holds other numbers than the state, as after a crash of the machine, is written
        again from the state.
        """
        before = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        found = {row["step"]: (row, line) for line in before if (row := _parsed(line))}
        kept, repaired = [], 0
        for row in run.rows():
            line = _line(row)
            there, text = found.get(row["step"], ({}, b""))
            is_same = json.loads(line).items() <= there.items()
            repaired += bool(before) and not is_same
            # What is there may hold more: hyperparameters whose rows are spread over processes.
            kept.append(text.decode() + "\n" if is_same else line)
        if repaired:
            warnings.warn(
                f"{self.path} lacked {repaired} of {len(kept)} records, or held other numbers in them; they were "
                "written again from the state of the run.",
                UserWarning,
                stacklevel=2,
            )
        with replacing(self.path) as file:
            file.write("".join(kept).encode())


def _line(row: Mapping[str, object]) -> str:
    """A row as a line of JSON, which has no NaN: a number that is not finite is null."""
    finite = {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """The row in a line; empty if it is damaged, or incomplete, as a killed run may leave the last one."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else {}
