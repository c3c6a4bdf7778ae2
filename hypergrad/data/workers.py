"""Worker processes that read examples ahead of their use."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import tee
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hypergrad.core.torch_internals.objects import end_workers
from hypergrad.data.batch import Examples
from hypergrad.data.rows import Rows
from hypergrad.data.sending import AsHere, died, is_of_death, sending

Key = tuple[str, Sequence[int], int]
"""What to read: the name of a part, rows of it, and the epoch."""


def require_num_workers(num_workers: Any) -> None:
    """Require a number of processes.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is negative.
    """
    expected = "num_workers must be an integer of at least 0, the number of processes that read what is streamed"
    remedy = "give 0 to read in this process"
    if isinstance(num_workers, bool) or not isinstance(num_workers, int):
        raise TypeError(f"{expected}, but it is {num_workers!r} of {type(num_workers).__name__}; {remedy}.")
    if num_workers < 0:
        raise ValueError(f"{expected}, but it is {num_workers}; {remedy}.")


class Workers:
    """Reads examples of several parts, in the order of a plan, in this process or ahead of it in others.

    The processes are those of torch's `DataLoader`. They start when they are needed first, and end with `close`, with
    this object, or with the process that started them.

    Args:
        num: the number of processes, ≥ 0; 0 reads in this one, when an example is used.
    """

    def __init__(self, num: int) -> None:
        self.num, self.parts = num, dict[str, Rows]()
        self.pin = False
        """Whether to put examples in memory from which a GPU copies while it computes."""
        self._stop()

    def run(self, plan: Iterable[Key]) -> Iterator[Examples]:
        """The examples of each key of a plan, which may be endless; it ends where another run begins.

        Args:
            plan: what to read; it is asked for keys a little ahead of their use.

        Yields:
            The examples.

        Raises:
            RuntimeError: if a process has died.

        Also raised, by what it calls: TypeError if a part cannot be sent to another process.
        """
        if self.num == 0:
            for key in plan:
                yield _read(self.parts, key)
            return
        plan, keys = tee(plan)
        with sending(self.parts):
            mine, batches = self._begin(plan)
        for key in keys:
            if self._run is not mine:
                return
            try:
                examples = next(batches)
            except BaseException as error:
                self.close()
                if isinstance(error, Exception):
                    _read(self.parts, key)  # raises the same, without the trace of another process
                if is_of_death(error):
                    raise RuntimeError(died(key[0], error)) from error
                raise
            yield examples

    def close(self) -> None:
        """End the processes; the next run starts new ones."""
        if self._batches is not None:
            # What its deletion would do, but the trace of an error may refer to it for long.
            end_workers(self._batches)
        self._stop()

    def _begin(self, plan: Iterable[Key]) -> tuple[object, Iterator[Any]]:
        if self._loader is None or self._loader.pin_memory != self.pin:
            self.close()
            # With a generator of its own, for it draws a seed for the workers.
            self._loader = DataLoader(
                _Reading(self.parts),
                batch_size=None,
                sampler=_Plan(),
                num_workers=self.num,
                collate_fn=_unchanged,
                pin_memory=self.pin,
                persistent_workers=True,
                generator=torch.Generator(),
                worker_init_fn=AsHere(torch.get_default_dtype()),
            )
        sampler: Any = self._loader.sampler
        sampler.plan, self._run = plan, object()
        self._batches: Any = iter(self._loader)
        return self._run, self._batches

    def _stop(self) -> None:
        self._loader: DataLoader[Any] | None = None
        self._run: object = None
        self._batches = None

    def __deepcopy__(self, memo: object) -> Self:
        """This object: copies of a problem read by the same processes."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_loader": None, "_run": None, "_batches": None}


class _Plan(Sampler[Key]):
    """The keys of the present run."""

    plan: Iterable[Key] = ()

    def __init__(self) -> None:
        pass

    def __iter__(self) -> Iterator[Key]:
        return iter(self.plan)


class _Reading(Dataset[Examples]):
    """Maps a key to its examples."""

    def __init__(self, parts: Mapping[str, Rows]) -> None:
        self.parts = parts

    def __getitem__(self, key: Any) -> Examples:
        return _read(self.parts, key)


def _read(parts: Mapping[str, Rows], key: Key) -> Examples:
    name, rows, epoch = key
    return parts[name].read(rows, epoch)


def _unchanged(item: Any) -> Any:
    return item
