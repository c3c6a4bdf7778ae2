"""The numbers of a run as TensorBoard events."""

from pathlib import Path
from typing import Any

import yaml

from hypergrad.callback.base import Callback, Record, Result, Run


class TensorBoard(Callback):
    """Writes TensorBoard events: every scalar of `Record.scalars`, histograms of vectors, the config, one HParams row.

    The HParams row stands in the run's own folder (`SummaryWriter.add_hparams` would make a folder below it), so that
    `tensorboard --logdir outputs` shows one row per run, named after its folder.

    Args:
        folder: the folder of the run; created when missing.
    """

    def __init__(self, folder: str | Path) -> None:
        # Imported here because it takes as long as all of hypergrad.
        from torch.utils.tensorboard.writer import SummaryWriter

        self.folder = Path(folder)
        self._make_writer = lambda purge_step: SummaryWriter(str(self.folder), purge_step=purge_step)
        self._config: dict[str, Any] = {}

    def on_start(self, run: Run) -> None:
        self._config = run.config
        if run.resumed_at is not None:
            # What lies behind the state from which the run goes on is no longer shown.
            self._writer = self._make_writer(run.resumed_at + 1)
            return
        self._writer = self._make_writer(None)
        text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
        self._writer.add_text("config", f"```yaml\n{text}```")

    def on_step(self, record: Record) -> None:
        for tag, value in record.scalars().items():
            self._writer.add_scalar(tag, value, record.step)
        for name, value in record.hparams.items():
            if value.ndim > 0:
                self._writer.add_histogram(f"hparam/{name}", value, record.step)
                if name in record.grad:
                    self._writer.add_histogram(f"hypergradient/{name}", record.grad[name], record.step)
        self._writer.flush()

    def on_end(self, result: Result) -> None:
        from torch.utils.tensorboard.summary import hparams

        losses = {tag: x for tag, x in result.last.scalars().items() if tag.startswith(("loss/", "run/"))}
        for summary in hparams(_flat(self._config), losses):
            self._writer._get_file_writer().add_summary(summary)
        self._writer.close()

    def on_error(self, error: BaseException, last: Record | None) -> None:
        self._writer.add_text("error", str(error))
        self._writer.close()


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, bool | str | float | int]:
    """Nested settings as one level with dotted names, as the HParams table takes them; lists become text.

    What Hydra builds goes by the name of its class: `estimator._target_: hypergrad.estimator.implicit.Implicit` is
    `estimator: Implicit`.
    """
    flat: dict[str, bool | str | float | int] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if key == "_target_":
            flat[prefix.removesuffix(".")] = value.rpartition(".")[2]
        elif key == "_partial_":
            continue
        elif isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, bool | str | float | int) else str(value)
    return flat
