"""What runs have left on disk, read for drawing."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hypergrad.core.cost import PRODUCT

_WIDEST = 64


@dataclass(frozen=True)
class History:
    """The numbers of a run.

    Attributes:
        name: what the legend calls it.
        rows: one dict per outer step, or per trial of a baseline, as `metrics.jsonl` holds them.
    """

    name: str
    rows: list[dict]

    @property
    def is_search(self) -> bool:
        """Whether the rows are trials, which have no order and no gradient."""
        return not any("hypergradient/norm" in row for row in self.rows)

    def work(self) -> np.ndarray:
        """Gradients so far, a Hessian product counted as two, as a budget counts them, shape (rows,)."""
        return self.series("run/gradients") + PRODUCT * self.series("run/products")

    def series(self, tag: str) -> np.ndarray:
        """A number over the rows, NaN where a row has none, shape (rows,)."""
        return np.array([np.nan if row.get(tag) is None else row[tag] for row in self.rows], dtype=float)

    def best_so_far(self, tag: str) -> np.ndarray:
        """A number at the lowest dev loss that was met up to each row, shape (rows,)."""
        dev, values = self.series("loss/dev"), self.series(tag)
        best = np.array([np.nanargmin(dev[: i + 1]) for i in range(len(dev))])
        return values[best]

    def hyperparameters(self) -> dict[str, np.ndarray]:
        """Each hyperparameter over the rows, shape (rows, entries), of the first 64 entries."""
        names = [tag.removeprefix("hparam/") for tag in self.rows[0] if tag.startswith("hparam/")]
        return {
            name: np.array([np.ravel(row[f"hparam/{name}"])[:_WIDEST] for row in self.rows], dtype=float)
            for name in names
        }


def read(folders: list[Path]) -> list[History]:
    """The histories in these folders, or in the folders of runs below them.

    Raises:
        FileNotFoundError: if there is no `metrics.jsonl` in one of them or below.
        ValueError: if one holds no row.
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
                raise ValueError(f"{file} holds no step yet.")
            found.append(History(_name(file.parent), rows))
    return found


def _name(folder: Path) -> str:
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}"
