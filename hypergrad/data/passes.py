"""A data set that can only be read in order, and again from its start."""

import hashlib
from collections.abc import Callable, Generator, Iterator
from itertools import count, islice
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, IterableDataset

from hypergrad.core.seed import seed_of
from hypergrad.core.torch_internals.objects import end_workers
from hypergrad.data.batch import Examples, as_examples, keys, no_examples, noted, require_examples
from hypergrad.data.checked_rows import require_each
from hypergrad.data.collation import collated
from hypergrad.data.random_state import copy_of_random_state, kept_random_state, restore_random_state, seed_random_state
from hypergrad.data.sending import AsHere, sending

Passage = tuple[int, bytes, Examples]
"""The epoch of a batch, a digest of the first batch of that epoch, and the batch."""


class Passes:
    """The batches of an `IterableDataset`, whose pass number e is epoch e.

    While pass e begins and goes on, the random states are its own, seeded by (seed, e); those of the process are put
    back after each batch.

    Args:
        dataset: of single examples.
        collate: maps a list of examples to a batch.
        name: of the part.
        seed: of the draws.
        batch_size: examples of a batch, ≥ 1.
        drop_last: whether a pass leaves out its last batch if that is smaller.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any],
        name: str,
        seed: int,
        *,
        batch_size: int,
        drop_last: bool,
    ) -> None:
        self.dataset, self.collate, self.name, self.seed = dataset, collate, name, seed
        self.batch_size, self.drop_last = batch_size, drop_last

    def __deepcopy__(self, memo: object) -> Self:
        """This object: a copy of a problem reads the same data set."""
        return self

    def whole(self) -> Examples:
        """All examples of the first pass."""
        with kept_random_state():
            return self._batch(list(self._started(0)), 0, 0)

    def first(self, size: int) -> Examples:
        """The first examples of the first pass.

        Raises:
            ValueError: if there are none, or reading them again gives others.
        """
        first, again = (self._first(size) for _ in range(2))
        if first is None:
            raise ValueError(no_examples(self.name))
        if again is None or digest(first) != digest(again):
            raise ValueError(self.not_repeated("its first examples were others"))
        return first

    def not_repeated(self, met: str) -> str:
        """The message for a stream that is another when it is read again."""
        return (
            f"The {self.name} part is an IterableDataset, which must give the same examples whenever it is read from "
            f"its start, but {met}. Let __iter__ begin anew, with draws from the random states of torch, Python or "
            "numpy only, or write it as a torch.utils.data.Dataset with __getitem__."
        )

    def batches(self, step: int) -> Iterator[Passage]:
        """The batches from a step ≥ 0 on, endlessly, pass after pass; those before are read and left out.

        Raises:
            ValueError: if a pass has no batch, or not as many as the first pass.
        """
        num = yield from self._one_pass(0, step)
        if num == 0:
            raise ValueError(
                f"The {self.name} part must have at least one batch of {self.batch_size} examples, but a pass over it "
                "has none; choose a smaller batch_size, or drop_last=False."
            )
        start = max(step, num)
        for epoch in count(start // num):
            found = yield from self._one_pass(epoch, max(0, start - epoch * num))
            if found != num:
                raise ValueError(self.not_repeated(f"pass {epoch} has {found} batches, and pass 0 has {num}"))

    def _one_pass(self, epoch: int, skipped: int) -> Generator[Passage, None, int]:
        """The batches of a pass without the first `skipped`; it returns the number of all batches."""
        with kept_random_state():
            examples = self._started(epoch)
            own = copy_of_random_state()
        first = b""
        for position in count():
            with kept_random_state():
                restore_random_state(own)
                some = list(islice(examples, self.batch_size))
                if not some or self.drop_last and len(some) < self.batch_size:
                    return position
                is_used = position == 0 or position >= skipped
                batch = self._batch(some, position * self.batch_size, epoch) if is_used else None
                own = copy_of_random_state()
            if position == 0 and batch is not None:
                first = digest(batch)
            if position >= skipped and batch is not None:
                yield epoch, first, batch
        return 0

    def _started(self, epoch: int) -> Iterator[Any]:
        seed_random_state(seed_of("pass", self.seed, epoch))
        with noted(f"reading the {self.name} part from its start"):
            return iter(self.dataset)

    def _first(self, size: int) -> Examples | None:
        with kept_random_state():
            some = list(islice(self._started(0), size))
            return self._batch(some, 0, 0) if some else None

    def _batch(self, some: list[Any], position: int, epoch: int) -> Examples:
        """The batch of the examples of a pass from a position on."""
        rows = [f"{position + k} of pass {epoch}" for k in range(len(some))]
        examples = as_examples(collated(self.collate, some, rows, self.name), self.name)
        require_each(lambda few: require_examples(few, self.name), examples, lambda: rows, self.name)
        return examples


class PassReader:
    """The batches of passes from any step on, read in this process or ahead of their use in one other.

    Args:
        passes: gives them.
        is_ahead: whether to read them in a process of its own.
    """

    def __init__(self, passes: Passes, *, is_ahead: bool) -> None:
        self.passes, self.is_ahead = passes, is_ahead
        self.pin = False
        """As in `Workers`."""
        self._digests: dict[int, bytes] = {}
        self._running: Any = None

    def run(self, step: int) -> Iterator[Examples]:
        """The batches of a step and, endlessly, of those after it.

        Yields:
            Each batch.

        Raises:
            ValueError: if a pass that was begun before now begins with another batch.
        """
        self.close()
        for epoch, first, examples in self._ahead(step) if self.is_ahead else self.passes.batches(step):
            if self._digests.setdefault(epoch, first) != first:
                raise ValueError(self.passes.not_repeated(f"pass {epoch} began with another batch"))
            yield examples

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            end_workers(self._running)
        self._running = None

    def _ahead(self, step: int) -> Iterator[Passage]:
        loader = DataLoader(
            _FromStep(self.passes, step),
            batch_size=None,
            num_workers=1,
            collate_fn=_unchanged,
            pin_memory=self.pin,
            generator=torch.Generator(),
            worker_init_fn=AsHere(torch.get_default_dtype()),
        )
        with sending({self.passes.name: self.passes}):
            self._running = iter(loader)
        return self._running

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_running": None}


class _FromStep(IterableDataset[Passage]):
    """The batches from a step on."""

    def __init__(self, passes: Passes, step: int) -> None:
        self.passes, self.step = passes, step

    def __iter__(self) -> Iterator[Passage]:
        return self.passes.batches(self.step)


def _unchanged(item: Any) -> Any:
    return item


def digest(examples: Examples) -> bytes:
    """A digest of the values of examples."""
    return hashlib.sha256(b"".join(keys(examples))).digest()
