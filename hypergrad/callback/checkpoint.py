"""The state of a run on disk."""

import os
from pathlib import Path

import torch

from hypergrad.callback.base import Callback, Record, Run, claim


class Checkpoint(Callback):
    """Keeps the last good state in `state.pt`: the outer step, λ in natural units, and the trained parameters.

    Load it with `torch.load(path, weights_only=True)`. It is written to a temporary file and renamed, so that a run
    that is killed while writing leaves the previous state behind.

    Args:
        folder: the folder of the run; created when missing.
        every: outer steps between two states, ≥ 1; the end of a run, and an error, write one in any case.

    Raises:
        ValueError: if `every` is below 1.
    """

    def __init__(self, folder: str | Path, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"Checkpoint.every must be at least 1, but it is {every}.")
        self.path = Path(folder) / "state.pt"
        self.every = every

    def on_start(self, run: Run) -> None:
        claim(self.path)

    def on_step(self, record: Record) -> None:
        if record.step % self.every == 0:
            self._write(record)

    def on_end(self, first: Record, last: Record) -> None:
        self._write(last)

    def on_error(self, error: BaseException, last: Record | None) -> None:
        if last is not None:
            self._write(last)

    def _write(self, record: Record) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save({"step": record.step, "hparams": record.hparams, "params": record.params}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
