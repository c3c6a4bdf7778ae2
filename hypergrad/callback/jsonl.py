"""The numbers of a run as lines of JSON."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from hypergrad.callback.atomic import remove_unfinished, replacing, writing
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
        self._writes = run.is_first
        if not self._writes:
            return
        claim(self.path, run)
        if run.resumed_at is not None:
            self._keep_until(run.resumed_at)

    def on_step(self, record: Record) -> None:
        if not self._writes:
            return
        row: dict[str, object] = {"step": record.step}
        # JSON has no NaN: an undefined number is null.
        row |= {tag: x if math.isfinite(x) else None for tag, x in record.scalars().items()}
        for name, value in record.hparams.items():
            if value.ndim > 0 and value.numel() <= MOST_ENTRIES:
                row[f"hparam/{name}"] = value.tolist()
        if record.labels and not self._labels.exists():
            self._labels.write_text(json.dumps({name: list(labels) for name, labels in record.labels.items()}) + "\n")
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _keep_until(self, step: int) -> None:
        """Drop the lines after the state from which the run resumes: they are written again, with the same numbers."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        # A run that was killed while writing may leave an incomplete last line.
        kept = "".join(f"{line}\n" for line in lines if line.endswith("}") and _step(line) <= step)
        remove_unfinished(self.folder, self.path.name)
        with replacing(self.path) as file:
            file.write(kept.encode())


def _step(line: str) -> int:
    return int(json.loads(line)["step"])
