"""What a run has seen so far."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors
from hypergrad.callback.base import MOST_ENTRIES, Record
from hypergrad.outer_state import placed


class Journal:
    """The records that count, the scalars of all, and the trajectory of the hyperparameters that are not too large.

    Args:
        like: the hyperparameters.
    """

    def __init__(self, like: Tensors) -> None:
        self.device = next(iter(like.values())).device
        self.history: list[dict[str, float]] = []
        self._paths: dict[str, list[Tensor]] = {name: [] for name, x in like.items() if x.numel() <= MOST_ENTRIES}
        self._records: tuple[Record, ...] = ()

    @property
    def last(self) -> Record | None:
        """The record of the last step, if there was one."""
        return self._records[1] if self._records else None

    def records(self) -> tuple[Record, Record, Record]:
        """The first, the last and the best record."""
        first, last, best = self._records
        return first, last, best

    def add(self, record: Record) -> None:
        """Keep a record."""
        first, _, best = self._records or (record, record, record)
        self._records = (first, record, record if record.outer_loss < best.outer_loss else best)
        self.history.append({"step": record.step, **record.scalars()})
        for name, path in self._paths.items():
            path.append(record.hparams[name])

    def trajectory(self) -> Tensors:
        """The hyperparameters over the records, shape (records, …)."""
        return {name: torch.stack(path) for name, path in self._paths.items()}

    def state(self) -> dict[str, Any]:
        """What `restore` needs, which later records do not change."""
        return {
            "history": list(self.history),
            "trajectory": {name: list(path) for name, path in self._paths.items()},
            "records": [
                {field.name: getattr(record, field.name) for field in fields(record)} for record in self._records
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.history, self._paths = state["history"], state["trajectory"]
        self._records = tuple(_as_record(content, self.device) for content in state["records"])


def _as_record(content: dict[str, Any], device: torch.device) -> Record:
    moved: dict[str, Any] = {key: placed(content[key], device) for key in ("hparams", "grad", "params")}
    return Record(**(content | moved))
