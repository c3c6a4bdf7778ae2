"""Data sets on their way to the processes that read them."""

import multiprocessing
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler

import torch


@dataclass(frozen=True)
class AsHere:
    """Gives a process that begins without them the settings of torch on which the values of examples depend.

    Attributes:
        dtype: torch's default dtype.
    """

    dtype: torch.dtype

    def __call__(self, worker: int) -> None:
        """Set them; `worker` is the number that torch gives a process."""
        torch.set_default_dtype(self.dtype)


@contextmanager
def sending(parts: Mapping[str, object]) -> Iterator[None]:
    """A context that starts processes for some parts; an error says which part cannot be sent there, and what to do.

    Raises:
        TypeError: if a part cannot be pickled, where processes do not begin as copies of this one.
        PicklingError: if something else cannot be pickled.
        AttributeError: likewise.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error", UserWarning)  # of torch, which names no part
            yield
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        for name, part in parts.items():
            reason = _unsendable(part)
            if reason:
                raise TypeError(
                    f"num_workers needs a data set of the {name} part that can be sent to another process, started by "
                    f"{multiprocessing.get_start_method()!r}, but it cannot be pickled: {reason}. Define its class and "
                    "its functions at the top level of a module, open files in __getitem__ and not in __init__, or "
                    "read in this process by num_workers=0."
                ) from error
        raise


def _unsendable(part: object) -> str:
    """Why something cannot be pickled; "" if it can be."""
    try:
        ForkingPickler.dumps(part)
    except Exception as error:  # a user's own __getstate__ may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def is_of_death(error: BaseException) -> bool:
    """Whether torch says that a process has died."""
    return isinstance(error, RuntimeError) and "exited unexpectedly" in str(error)


def died(name: str, error: BaseException) -> str:
    """The message for a process that has died while it read a part."""
    return (
        f"A process that reads the {name} part must live until the end of the run, but torch says: "
        f"{str(error).splitlines()[0]}. It may have run out of memory. Where processes are started by 'spawn', put "
        "what a script does under `if __name__ == '__main__':`, and the data set of a notebook into a module. "
        "num_workers=0 reads in this process."
    )
