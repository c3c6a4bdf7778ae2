"""A run as its folder records it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hypergrad.core.cost import PRODUCT

FINISHED, FAILED, INTERRUPTED, UNFINISHED = "finished", "failed", "interrupted", "unfinished"
_MISSING = object()


@dataclass(frozen=True)
class RecordedRun:
    """What is in the folder of a run.

    Attributes:
        folder: where it is.
        rows: one dict per outer step, or per trial of a baseline, as `metrics.jsonl` holds them; may be empty.
        summary: the content of `summary.json`; empty if there is none.
        overrides: the values on its command line by key, without the marks + and ~.
        choices: the choice for each config group.
        config: the composed config.
        labels: names of the entries of hyperparameters.
    """

    folder: Path
    rows: list[dict[str, Any]]
    summary: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Whether it is "finished", "failed", "interrupted" or "unfinished", which is still running or was killed."""
        return self.summary.get("status", UNFINISHED)

    @property
    def is_search(self) -> bool:
        """Whether the rows are trials, which have no gradient."""
        return not any("hypergradient/norm" in row for row in self.rows)

    def setting(self, key: str) -> Any:
        """The value of a key of the command line, such as "estimator" or "solver.lr"; None if the run has none."""
        for values in (self.overrides, self.choices):
            if key in values:
                return values[key]
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        return None if value is _MISSING else value

    def series(self, tag: str) -> np.ndarray:
        """A number for each row, NaN if a row has none, shape (rows,)."""
        return np.array([np.nan if row.get(tag) is None else row[tag] for row in self.rows], dtype=float)

    def work(self) -> np.ndarray:
        """Gradients so far, shape (rows,); a Hessian product counts as two, as in a budget."""
        return self.series("run/gradients") + PRODUCT * self.series("run/products")

    def best_so_far(self, tag: str) -> np.ndarray:
        """A number at the lowest dev loss up to each row, shape (rows,); NaN while no row has a dev loss."""
        dev, values = np.nan_to_num(self.series("loss/dev"), nan=np.inf), self.series(tag)
        return values[[int(np.argmin(dev[: i + 1])) for i in range(len(dev))]]

    @cached_property
    def hyperparameters(self) -> dict[str, np.ndarray]:
        """The entries of each hyperparameter for each row, flat, shape (rows, entries).

        One of too many entries to be recorded has its norm instead, under the name "norm of NAME".
        """
        tags = [tag for tag in (self.rows[0] if self.rows else ()) if tag.startswith("hparam/")]
        vectors = tuple(f"{tag}/" for tag in tags if isinstance(self.rows[0][tag], list))
        names = {tag.removeprefix("hparam/"): tag for tag in tags if not tag.startswith(vectors)}
        norms = [tag.removeprefix("hparam_norm/") for tag in (self.rows[0] if self.rows else ()) if "_norm/" in tag]
        names |= {f"norm of {name}": f"hparam_norm/{name}" for name in norms if name not in names}
        return {name: np.array([np.ravel(row[tag]) for row in self.rows], dtype=float) for name, tag in names.items()}
