"""The state of a run on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypergrad.callback.atomic import remove_unfinished
from hypergrad.callback.base import Callback, Record, Result, Run
from hypergrad.callback.state_file import found, write


class StateSaver(Callback):
    """Saves the last states of a run as `state-NNNNNN.pt`, for `Trainer.fit(resume=folder)` to go on bit for bit.

    A file holds the outer step, λ and the unconstrained u, the optimiser, the trained parameters, the adjoint, the
    random streams and the history. `torch.load(path, weights_only=True)` has `step`, `hparams` and `params`.

    Args:
        folder: the folder of the run; created when missing.
        every: outer steps between two states, ≥ 1; the end of a run, an error, Ctrl-C and SIGTERM also write one.
        keep: the number of states to keep, ≥ 1.

    Raises:
        ValueError: if `every` or `keep` is below 1.
    """

    def __init__(self, folder: str | Path, every: int = 1, keep: int = 2) -> None:
        for name, value in {"every": every, "keep": keep}.items():
            if value < 1:
                raise ValueError(f"StateSaver.{name} must be at least 1, but it is {value}.")
        self.folder = Path(folder)
        self.every, self.keep = every, keep

    def writes_to(self) -> Sequence[Path]:
        return (self.folder,)

    def on_start(self, run: Run) -> None:
        self._latest: dict[str, Any] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder, "state-*.pt")
        states = found(self.folder)
        if states and run.resumed_at is None:
            raise FileExistsError(f"{states[-1]} belongs to another run; choose another folder, or resume it.")

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        self._latest = state
        if step % self.every == 0:
            self._write()

    def on_end(self, result: Result) -> None:
        self._write()

    def on_error(self, error: BaseException, last: Record | None) -> None:
        self._write()

    def _write(self) -> None:
        if self._latest is not None:
            write(self.folder, self._latest, self.keep)
            self._latest = None
