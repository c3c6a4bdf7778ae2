"""The state of a run on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypergrad.callback.base import Callback, Record, Result, Run
from hypergrad.callback.history_file import HistoryFile
from hypergrad.callback.shard_folder import remove_orphans, without_rows, write_shards
from hypergrad.callback.state_file import found, path_of, write


class StateSaver(Callback):
    """Saves the last states of a run as `state-NNNNNN.pt`, for `Trainer.fit(resume=folder)` to go on bit for bit.

    A file holds the outer step, λ and the unconstrained u, the optimiser, the trained parameters, the adjoint and the
    random streams. `torch.load(path, weights_only=True)` has `step`, `hparams` and `params`. The history is in
    `history.jsonl` beside it, to which each record is appended once, so that a save costs the same at every step.
    Of hyperparameters and parameters that are spread over processes, each process writes its own rows, into the folder
    `state-NNNNNN.shards`, and any number of processes can read them; an error that ends one process writes no state.

    Args:
        folder: the folder of the run; created when missing.
        every: outer steps between two states, ≥ 1; the end of a run, an error, Ctrl-C and SIGTERM also write one.
            If not every step is recorded, it is the first record at or after each multiple.
        keep: the number of states to keep, ≥ 1.

    Raises:
        ValueError: if `every` or `keep` is below 1.
    """

    _writes = True  # see `Run.is_first`

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
        self._seen, self._writes = -1 if run.resumed_at is None else run.resumed_at, run.is_first
        if not self._writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_orphans(self.folder)
        states = found(self.folder)
        if states and run.resumed_at is None:
            raise FileExistsError(f"{states[-1]} belongs to another run; choose another folder, or resume it.")
        self._history = HistoryFile(self.folder, resumes=run.resumed_at is not None)

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        before, self._seen, self._latest = self._seen, step, state
        if step // self.every > before // self.every:
            self._write()

    def on_end(self, result: Result) -> None:
        self._write()

    def on_error(self, error: BaseException, last: Record | None) -> None:
        # After Ctrl-C and SIGTERM all ranks come here, and after other errors perhaps this one alone.
        if isinstance(error, KeyboardInterrupt) or not self._needs_others:
            self._write()

    def _write(self) -> None:
        if self._latest is None:
            return
        state, rows = without_rows(self._latest)
        if rows:
            state |= write_shards(path_of(self.folder, state["step"]), rows)
        if self._writes:
            write(self._history, state, self.keep)
        self._latest = None

    @property
    def _needs_others(self) -> bool:
        """Whether other processes have rows of the state."""
        rows = () if self._latest is None else without_rows(self._latest)[1].values()
        return any(x.shard.ranks.world > 1 for x in rows)
