"""The metrics of runs, read from their folders."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hypergrad.core.cost import PRODUCT

_WIDEST = 64
"""Entries of a hyperparameter to draw; more lines in one panel cannot be told apart."""


@dataclass(frozen=True)
class History:
    """The numbers of a run.

    Attributes:
        name: for the legend.
        rows: one dict per outer step, or per trial of a baseline, as `metrics.jsonl` holds them.
    """

    name: str
    rows: list[dict]

    @property
    def is_search(self) -> bool:
        """Whether the rows are trials, which have no gradient."""
        return not any("hypergradient/norm" in row for row in self.rows)

    def work(self) -> np.ndarray:
        """Gradients so far, shape (rows,); a Hessian product counts as two, as in a budget."""
        return self.series("run/gradients") + PRODUCT * self.series("run/products")

    def series(self, tag: str) -> np.ndarray:
        """A number for each row, NaN if a row has none, shape (rows,)."""
        return np.array([np.nan if row.get(tag) is None else row[tag] for row in self.rows], dtype=float)

    def best_so_far(self, tag: str) -> np.ndarray:
        """A number at the lowest dev loss up to each row, shape (rows,)."""
        dev, values = self.series("loss/dev"), self.series(tag)
        best = np.array([np.nanargmin(dev[: i + 1]) for i in range(len(dev))])
        return values[best]

    def hyperparameters(self) -> dict[str, np.ndarray]:
        """The first 64 entries of each hyperparameter for each row, shape (rows, entries)."""
        tags = [tag for tag in self.rows[0] if tag.startswith("hparam/")]
        vectors = [f"{tag}/" for tag in tags if isinstance(self.rows[0][tag], list)]
        names = [tag.removeprefix("hparam/") for tag in tags if not tag.startswith(tuple(vectors))]
        return {
            name: np.array([np.ravel(row[f"hparam/{name}"])[:_WIDEST] for row in self.rows], dtype=float)
            for name in names
        }


def read(folders: list[Path]) -> list[History]:
    """The histories in these folders, or in the folders of runs below them.

    Raises:
        FileNotFoundError: if a folder holds no `metrics.jsonl`, nor a folder below it.
        ValueError: if a file holds no row.
    """
    found: list[History] = []
    for folder in folders:
        files = [folder / "metrics.jsonl"]
        if not files[0].exists():
            files = sorted(folder.rglob("metrics.jsonl"))
        if not files:
            raise FileNotFoundError(f"{folder} holds no metrics.jsonl, nor does a folder below it; name a run.")
        for file in files:
            rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
            if not rows:
                raise ValueError(f"{file} holds no step yet; wait for the first one, or leave out this run.")
            found.append(History(_name(file.parent), rows))
    return found


def _name(folder: Path) -> str:
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}"
