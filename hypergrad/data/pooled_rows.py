"""Rows of several parts together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hypergrad.data.batch import Examples
from hypergrad.data.rows import Rows
from hypergrad.data.tree import joined, take


class PooledRows(Rows):
    """Some rows of several parts behind each other.

    Args:
        parts: the first one is read as it is in the epoch, the others as they are in the first epoch.
        positions: of the examples among those of all parts.
        name: of the new part.
    """

    def __init__(self, parts: Sequence[Rows], positions: Tensor, name: str) -> None:
        self.parts, self.positions, self.name, self.columns = parts, positions.cpu(), name, parts[0].columns
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def ragged(self) -> bool:
        return any(part.ragged for part in self.parts)

    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        positions = self.positions[torch.tensor(rows)]
        owner = torch.searchsorted(self._ends, positions, right=True)
        found, order = None, []
        for k, part in enumerate(self.parts):
            own = (owner == k).nonzero()[:, 0]
            if len(own) == 0:
                continue
            start = self._ends[k] - len(part)
            some = part.read((positions[own] - start).tolist(), epoch if k == 0 else 0)
            found = some if found is None else Examples(joined(found.X, some.X), joined(found.y, some.y))
            order.append(own)
        assert found is not None  # there is at least one row
        back = torch.cat(order).argsort()
        return Examples(take(found.X, back), found.y[back], self.columns)
