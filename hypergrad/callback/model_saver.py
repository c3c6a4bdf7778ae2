"""The best model of a run on disk."""

from collections.abc import Sequence
from pathlib import Path

from hypergrad.callback.base import Callback, Record, Result, Run, claim
from hypergrad.callback.hparams_file import HPARAMS_FILE


class ModelSaver(Callback):
    """Writes `hparams.yaml` and `model.pt` at the end: the model after a final training, or of the best record.

    An error, Ctrl-C and SIGTERM write the best so far, unless rows of hyperparameters are spread over processes. If
    parameters are sharded over the ranks, the first rank gathers them one by one in the memory of its host, and an
    error of one rank writes nothing. See `TrainedModel.save` for the files.

    Args:
        folder: the folder of the run; created when missing.
    """

    _writes = _is_whole = True  # see `Run.is_first`

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def writes_to(self) -> Sequence[Path]:
        return [self.folder]

    def on_start(self, run: Run) -> None:
        self._best, self._writes, self._is_whole = run.best, run.is_first, not run.problem.param_shards()
        if self._writes:
            claim(self.folder / HPARAMS_FILE, run)

    def on_end(self, result: Result) -> None:
        result.model.save(self.folder, writes=self._writes)

    def on_error(self, error: BaseException, last: Record | None) -> None:
        best = self._best()
        # After Ctrl-C and SIGTERM all ranks come here, and ranks that failed give no shards.
        if best is not None and (self._is_whole or isinstance(error, KeyboardInterrupt)):
            best.model.save(self.folder, writes=self._writes)
