"""The numbers of a run as lines of JSON."""

import json
import math
from pathlib import Path

from hypergrad.callback.base import Callback, Record, Run, claim

_MOST_ENTRIES = 1000


class JSONLines(Callback):
    """Writes `metrics.jsonl`, one line per outer step, each on disk before the next step begins.

    A line holds `step`, every scalar by its TensorBoard tag, and each vector hyperparameter of at most 1000 entries in
    full under `hparam/NAME`, as a (nested) list.

    Args:
        folder: the folder of the run; created when missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "metrics.jsonl"

    def on_start(self, run: Run) -> None:
        claim(self.path)

    def on_step(self, record: Record) -> None:
        row: dict[str, object] = {"step": record.step}
        # JSON has no NaN: an undefined number is null.
        row |= {tag: x if math.isfinite(x) else None for tag, x in record.scalars().items()}
        for name, value in record.hparams.items():
            if value.ndim > 0 and value.numel() <= _MOST_ENTRIES:
                row[f"hparam/{name}"] = value.tolist()
        with self.path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
