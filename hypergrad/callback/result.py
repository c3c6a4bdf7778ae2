"""What a run found."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hypergrad.callback.atomic import replacing
from hypergrad.callback.before_after import before_after, number
from hypergrad.callback.notebook import as_html
from hypergrad.callback.record import OUTER_LOSS, Record
from hypergrad.callback.rows import as_csv, as_frame, recorded_rows, table_rows
from hypergrad.callback.trained_model import TrainedModel
from hypergrad.core.autodiff import Tensors
from hypergrad.core.display import counted, on_screen


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a run.

    Attributes:
        first: the record at the initial λ, the default that tuning has to improve.
        last: the record at the final λ.
        best: the record at the minimum of the monitored number, by default the dev loss.
        stopped: why it ended: "outer_steps", "patience" (the monitored number had no new minimum), "stalled" (no step
            in the direction of the optimiser lowered the dev loss), "interrupted" (by Ctrl-C; the last record is then
            that of the last complete step), or "budget" (of a search, whose records are trials).
        history: the scalars of every record, in order, by the tags of TensorBoard, with `step`; for a data frame.
        trajectory: each hyperparameter of at most `MOST_ENTRIES` entries over the records, shape (records, …).
        final_model: the model of a final training on train and dev together at the best λ, if requested.
        monitor: what is monitored: "outer_loss", or the name of a metric.
    """

    first: Record
    last: Record
    best: Record
    stopped: str
    history: list[dict[str, float]]
    trajectory: Tensors
    final_model: TrainedModel | None = None
    monitor: str = OUTER_LOSS

    @property
    def hparams(self) -> Tensors:
        """The best λ in natural units; the final λ is `last.hparams`."""
        return self.best.hparams

    @property
    def params(self) -> Tensors:
        """The parameters trained at the best λ."""
        return self.best.params

    @property
    def retrained(self) -> dict[str, float] | None:
        """The metrics after the final training on train and dev together, if it was requested."""
        return None if self.final_model is None else dict(self.final_model.losses)

    @property
    def model(self) -> TrainedModel:
        """The model to use: that of the final training if there was one, else that of the best record."""
        return self.final_model or self.best.model

    def module(self) -> nn.Module:
        """The user's module in `eval()` mode with the parameters of `model`; see `TrainedModel.module`."""
        return self.model.module()

    def __repr__(self) -> str:
        """The losses and not the tensors, as a notebook shows them."""
        first, last = (number(one.dev_loss) for one in (self.first, self.last))
        losses = f"dev loss {first} → {last}"
        what = "" if self.monitor == OUTER_LOSS else f" {self.monitor}"
        least = f"lowest{what} {number(self.best.monitored(self.monitor))} at {self.best.step}"
        best = [] if self.best.step == self.last.step else [least]
        taken = counted(self.last.step, "trial" if self.stopped == "budget" else "outer step")
        return on_screen("Result", [taken, losses, *best, f"stopped by {self.stopped}"])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of the terminal, and curves if matplotlib is installed."""
        labels = {name: list(self.best.names(name)) for name in self.trajectory}
        paths = {name: list(values) for name, values in self.trajectory.items()}
        return as_html(before_after(self), list(recorded_rows(self.history, paths)), labels)

    def save(self, folder: str | Path) -> None:
        """Write `hparams.yaml`, `model.pt` and `history.csv`; earlier files of these names are replaced.

        See `TrainedModel.save`; a row of `history.csv` is one of `rows`.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)  # of many ranks, perhaps only the first writes the model
        self.model.save(folder)
        with replacing(Path(folder) / "history.csv") as file:
            file.write(as_csv(self.rows()).encode())

    def rows(self) -> list[dict[str, float]]:
        """The history with each entry of the `trajectory` of a vector, by its tag `hparam/NAME/ENTRY`."""
        return table_rows(self.history, self.trajectory, self.best.names)

    def to_frame(self) -> Any:
        """The `rows` as a pandas DataFrame; ImportError if pandas is not installed."""
        return as_frame(self.rows())

    def tensors(self) -> Tensors:
        """The history as one tensor per tag, shape (records,), NaN where a record has no such number."""
        tags = {tag: None for row in self.history for tag in row}
        return {tag: torch.tensor([row.get(tag, math.nan) for row in self.history]) for tag in tags}
