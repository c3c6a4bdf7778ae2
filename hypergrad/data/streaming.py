"""Which parts of a user's data are read when they are used, and how."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from hypergrad.core.torch_internals.trees import tree_leaves, tree_map
from hypergrad.data.batch import Examples, as_examples, described, is_named, is_pair, no_examples
from hypergrad.data.checked_rows import CheckedRows
from hypergrad.data.collation import Collation
from hypergrad.data.minibatch import scheduled
from hypergrad.data.passes import Passes
from hypergrad.data.random_examples import RandomExamples
from hypergrad.data.random_state import kept_random_state
from hypergrad.data.rows import ArrayRows, DatasetRows, Rows
from hypergrad.data.source import is_dataset, require_repeatable, visited
from hypergrad.data.streamed import StreamedPart
from hypergrad.data.streamed_passes import PassPart
from hypergrad.data.streamed_rows import RowPart
from hypergrad.data.tree import as_tree
from hypergrad.data.workers import Workers, require_num_workers

STREAMED_ABOVE = 2**30
"""Bytes of a data set above which it is streamed unless the user says otherwise: 1 GiB."""
_CHUNK = 256
"""Examples read at a time where all of a part are read. A judgement: small in memory, and few messages."""


class Streaming:
    """How the parts of a problem are streamed.

    Args:
        stream: True, False, or None to stream the data sets of more than `STREAMED_ABOVE` bytes in mini-batches.
        num_workers: processes that read, ≥ 0.
        batch_size: examples of a training step; None for all.
        drop_last: whether an epoch leaves out a smaller last batch.
        seed: of the batches and of what data sets draw.
        num_first: examples of each part to keep in memory, ≥ 1.
        fixed_batches: whether all epochs have the same batches, in another order.

    Raises:
        TypeError: if `stream` is something else.
        ValueError: if the settings do not fit each other.

    Also raised, by what it calls: TypeError or ValueError if `num_workers` is no integer ≥ 0.
    """

    def __init__(
        self,
        stream: bool | None,
        num_workers: int,
        *,
        batch_size: int | None,
        drop_last: bool,
        seed: int,
        num_first: int,
        fixed_batches: bool = False,
    ) -> None:
        self.stream, self.num_workers, self.batch_size, self.drop_last = stream, num_workers, batch_size, drop_last
        self.seed, self.num_first, self.fixed_batches = seed, num_first, fixed_batches
        require_num_workers(num_workers)
        if stream is not None and not isinstance(stream, bool):
            raise TypeError(f"stream must be True, False or None, but it is {stream!r} of {type(stream).__name__}.")
        if stream and batch_size is None:
            raise ValueError(
                "stream=True needs a batch_size, the examples of a training step, but it is None, which takes all of "
                "train; give one, such as batch_size=128."
            )
        if stream is False and num_workers:
            raise ValueError(
                f"num_workers={num_workers} processes would read a data set that is streamed, but stream is False; "
                "give stream=True, or leave num_workers out."
            )
        self._workers = Workers(num_workers)

    def part(self, source: Any, name: str, like: Tensor) -> StreamedPart | None:
        """A part that is streamed; None if it is to be read into memory.

        Args:
            source: of the user; see `read`.
            name: of the part.
            like: a tensor on the device and in the dtype of the model.

        Also raised, by what it calls: TypeError if it cannot be streamed; ValueError if its first examples are not as
        they must be, or differ when they are read again.
        """
        data, collate, num_workers = _opened(source)
        if self.stream is False or self.stream is None and not self._is_large(data):
            return None
        self._workers.num = self._workers.num or num_workers
        if isinstance(data, IterableDataset):
            size = {"batch_size": self.batch_size or 1, "drop_last": self.drop_last}
            passes = Passes(data, Collation(collate, name), name, self.seed, **size)
            return PassPart(passes, self.num_first, like, is_ahead=self._workers.num > 0)
        return self.part_of(self._rows(source, data, collate, name), like)

    def require_use(self, parts: Mapping[str, Any]) -> None:
        """Warn if processes were asked for, and no part is streamed.

        Args:
            parts: what was read.
        """
        if self.num_workers and not any(isinstance(part, StreamedPart) for part in parts.values()):
            warnings.warn(
                f"num_workers={self.num_workers} has no effect, because nothing is streamed: without stream, only data "
                f"sets of more than {STREAMED_ABOVE / 2**30:g} GiB are, and only with a batch_size. Give stream=True, "
                "or leave num_workers out.",
                UserWarning,
                stacklevel=3,
            )

    def part_of(self, rows: Rows, like: Tensor) -> RowPart:
        """A part that is streamed by its rows, which are not checked yet."""
        cut = {"batch_size": self.batch_size, "drop_last": self.drop_last, "seed": self.seed}
        schedule = partial(scheduled, size=len(rows), **cut, fixed=self.fixed_batches)
        checked = CheckedRows(rows, self.num_first)
        return RowPart(checked, self._workers, schedule, like, self.batch_size or _CHUNK)

    def again(self) -> "Streaming":
        """The same for other parts, which are read by processes of their own."""
        cut: Any = {"batch_size": self.batch_size, "drop_last": self.drop_last, "seed": self.seed}
        more: Any = {"num_first": self.num_first, "fixed_batches": self.fixed_batches}
        return Streaming(self.stream, self._workers.num, **cut, **more)

    def _rows(self, source: Any, data: Any, collate: Any, name: str) -> Rows:
        """The rows of a source.

        Raises:
            TypeError: if it has none that can be read one by one.
            ValueError: if there are none.
        """
        if is_named(source) or is_pair(source):
            X, y, columns = as_examples(source, name)
            rows: Rows = ArrayRows(Examples(tree_map(Tensor.cpu, X), y.cpu(), columns), name)
        elif is_dataset(data):
            positions = visited(source, name) if isinstance(source, DataLoader) else range(len(data))
            rows = DatasetRows(RandomExamples(data, positions, Collation(collate, name), name, self.seed))
        else:
            in_memory = (
                "a list is in memory already, so leave out stream=True; a list of single examples (x, y) is given as "
                "torch.utils.data.DataLoader(examples, batch_size=100)."
            )
            other = "write a Dataset, or leave out stream=True to read it into memory."
            raise TypeError(
                f"With stream=True the {name} part must be a Dataset, with __getitem__ and __len__ or an "
                f"IterableDataset, a DataLoader over one, or a pair (X, y) of arrays, but it is {described(source)}; "
                f"{in_memory if isinstance(data, Sequence) else other}"
            )
        if len(rows) == 0:
            raise ValueError(no_examples(name))
        if isinstance(rows, DatasetRows):
            require_repeatable(rows.examples)
        return rows

    def _is_large(self, data: Any) -> bool:
        """Whether a data set is estimated to be larger than `STREAMED_ABOVE`, and can be streamed."""
        if self.batch_size is None or not is_dataset(data) or isinstance(data, TensorDataset) or len(data) == 0:
            return False
        with kept_random_state():
            return len(data) * _num_bytes(data[0]) > STREAMED_ABOVE


def _opened(source: Any) -> tuple[Any, Any, int]:
    """The data set of a source, or the source itself; what makes a batch of its examples; and how many processes."""
    if not isinstance(source, DataLoader):
        return source, default_collate, 0
    return source.dataset, source.collate_fn, source.num_workers


def _num_bytes(example: Any) -> int:
    """The size of an example in memory: of its arrays, and 8 for a number."""
    return sum(int(getattr(x, "nbytes", 8)) for x in tree_leaves(as_tree(example)) if not isinstance(x, str | bytes))
