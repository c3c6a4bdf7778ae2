"""Which rows of several one of some processes has."""

from typing import Any, NamedTuple


class OwnRows(NamedTuple):
    """The examples, tasks or images of one process.

    Attributes:
        rows: consecutive.
        share: of all of them, ≥ 0.
    """

    rows: slice
    share: float

    @property
    def scale(self) -> float:
        """1 / share: times the sum over these rows, it gives the part of a sum over all of them; 0 without any."""
        return 1 / self.share if self.share else 0.0


def own_rows(size: int, rank: int, world: int) -> OwnRows:
    """The rows of process `rank` of `world`, whose numbers differ by at most one; the first row if there is none."""
    least, more = divmod(size, world)
    start, num = rank * least + min(rank, more), least + (rank < more)
    return OwnRows(slice(start, start + num), num / size) if num else OwnRows(slice(0, 1), 0.0)


def rows_of(batch: Any) -> slice:
    """The rows of one process, if a batch says which they are; of any other batch, such as a subclass's own, all."""
    return batch.rows if isinstance(batch, OwnRows) else slice(None)
