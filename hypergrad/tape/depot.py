"""States that are kept for the way back: in memory, and beyond a budget elsewhere."""

import os
import shutil
import tempfile
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypergrad.solver.base import State
from hypergrad.tape.transfer import Transfer
from hypergrad.training.states import entries

IN_FLIGHT = 2
"""States that are in memory on their way out or back, beside those that stay: one that moves, and one that is used."""


def bytes_of(state: State) -> int:
    """The bytes of a state."""
    return sum(x.numel() * x.element_size() for x in entries(state))


class _Arrived(NamedTuple):
    """A state, and on a GPU the event after which it can be read."""

    state: State
    event: Any = None


class Depot:
    """States by number. The first ones stay in memory, up to a budget of bytes, and the others are moved out.

    Moving out and reading ahead run beside the computation: on a stream of their own for a GPU, in a thread for a disk.

    Args:
        where: "cpu", pinned memory, for states on a GPU; "disk", a temporary folder that is deleted in any case; None
            if all states stay.
        budget: bytes of states that stay.
    """

    def __init__(self, where: str | None, budget: float) -> None:
        self._where, self._budget = where, budget
        self._room = budget
        self._kept: dict[int, State] = {}
        self._outside: dict[int, State | Future[None]] = {}
        self._arriving: dict[int, _Arrived | Future[_Arrived]] = {}
        self._transfer: Transfer | None = None
        self._files: _Files | None = None

    def put(self, key: int, state: State) -> None:
        """Keep a state under a number that is free."""
        size = bytes_of(state)
        if self._where is None or size <= self._room:
            self._room -= size
            self._kept[key] = state
            return
        device = entries(state)[0].device
        if device.type == "cuda" and self._transfer is None:
            self._transfer = Transfer(device)
        if self._where == "cpu":
            assert self._transfer is not None  # a tape refuses the CPU
            self._outside[key], _ = self._transfer.out(state)
            return
        self._files = self._files or _Files()
        self._outside[key] = self._files.write(key, state, self._transfer)

    def expect(self, key: int) -> None:
        """Begin to read a state that will be asked for."""
        if key in self._kept or key in self._arriving or key not in self._outside:
            return
        outside = self._outside[key]
        if isinstance(outside, Future):
            assert self._files is not None
            self._arriving[key] = self._files.read(key, self._transfer)
        else:
            assert self._transfer is not None
            self._arriving[key] = _Arrived(*self._transfer.back(outside))

    def get(self, key: int) -> State:
        """A state that was put, and stays until it is dropped."""
        if key in self._kept:
            return self._kept[key]
        self.expect(key)
        outside, arriving = self._outside[key], self._arriving[key]
        if isinstance(outside, Future):
            outside.result()
        if isinstance(arriving, Future):
            arriving = self._arriving[key] = arriving.result()
        if arriving.event is not None:
            assert self._transfer is not None
            self._transfer.use(arriving.state, arriving.event)
        return arriving.state

    def drop(self, key: int) -> None:
        """Forget a state."""
        if key in self._kept:
            self._room += bytes_of(self._kept.pop(key))
            return
        self._arriving.pop(key, None)
        if isinstance(self._outside.pop(key, None), Future):
            assert self._files is not None
            self._files.delete(key)

    def take(self, key: int) -> State:
        """A state, which is dropped, while the one before it is read."""
        state = self.get(key)
        self.drop(key)
        self.expect(key - 1)
        return state

    def close(self) -> None:
        """Forget all states, and delete the folder."""
        self._kept.clear()
        self._outside.clear()
        self._arriving.clear()
        if self._files is not None:
            self._files.close()
            self._files = None


class _Files:
    """States in a temporary folder, written and read by one thread in the order in which that was asked for."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hypergrad-", dir=_wanted_folder()))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hypergrad-offload")
        self._delete = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._writes: deque[Future[None]] = deque()

    def write(self, key: int, state: State, transfer: Transfer | None) -> "Future[None]":
        """Begin to write a state, once at most one other is still to be written."""
        while len(self._writes) >= IN_FLIGHT - 1:
            self._writes.popleft().result()
        host, event = (state, None) if transfer is None else transfer.out(state)
        written = self._pool.submit(_save, host, event, self._path(key))
        self._writes.append(written)
        return written

    def read(self, key: int, transfer: Transfer | None) -> "Future[_Arrived]":
        """Begin to read a state."""
        return self._pool.submit(_load, self._path(key), transfer)

    def delete(self, key: int) -> None:
        """Delete a state that was read, or is not wanted."""
        self._pool.submit(self._path(key).unlink, missing_ok=True)

    def close(self) -> None:
        """Stop, and delete the folder."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._delete()

    def _path(self, key: int) -> Path:
        return self._folder / f"{key}.pt"


def _wanted_folder() -> str | None:
    """The folder that TMPDIR names; None if it names none.

    Raises:
        NotADirectoryError: if states cannot be written there; tempfile would choose another one without a word.
    """
    folder = os.environ.get("TMPDIR") or None
    if folder is not None and not (Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise NotADirectoryError(
            f"offload='disk' writes states to the folder of the environment variable TMPDIR, but {folder!r} is no "
            "folder that can be written to. Create it, or set TMPDIR to another one."
        )
    return folder


def _save(host: State, event: Any, path: Path) -> None:
    """Write a state, once the event has happened.

    Raises:
        OSError: if that fails; the message names the folder and the bytes.
    """
    if event is not None:
        event.synchronize()
    try:
        with path.open("wb") as file:
            torch.save({group: {k: _alone(x) for k, x in tensors.items()} for group, tensors in host.items()}, file)
    except (OSError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"A state of {bytes_of(host):,} bytes could not be written to the folder {path.parent}, where {free:,} "
            f"bytes are free: {error}. Set the environment variable TMPDIR to a folder on a larger disk, raise the "
            "tape's budget of memory, or use Checkpoint, which keeps fewer states."
        ) from error


def _load(path: Path, transfer: Transfer | None) -> _Arrived:
    state = torch.load(path, weights_only=True)
    if transfer is None:
        return _Arrived(state)
    pinned = {group: {name: x.pin_memory() for name, x in tensors.items()} for group, tensors in state.items()}
    return _Arrived(*transfer.back(pinned))


def _alone(x: Tensor) -> Tensor:
    """The tensor, copied if it is a part of a larger storage, all of which would be written."""
    return x if x.untyped_storage().nbytes() == x.numel() * x.element_size() else x.clone()
