"""One process at a time writes to the folder of a run."""

import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from hypergrad.callback.atomic import remove_unfinished, writing
from hypergrad.callback.base import Callback
from hypergrad.core.errors import FolderInUseError
from hypergrad.core.ranks import ALONE
from hypergrad.outer.agreement import Agreement

LOCK = ".lock"
"""The lock is held on this file; the operating system releases it when the process ends, however it ends."""
OWNER = ".lock.json"
"""Says which process holds the lock, or held it last."""


def folders(callbacks: Sequence[Callback]) -> list[Path]:
    """The folders that callbacks write to, each once."""
    return list(dict.fromkeys(path.resolve() for callback in callbacks for path in callback.writes_to()))


@contextmanager
def locked(paths: Iterable[Path], agreement: Agreement | None = None) -> Iterator[None]:
    """Hold the locks of these folders during the block; missing folders are made. On many ranks, the first holds them.

    Also raised, by what it calls: FolderInUseError if another process, or another run of this one, holds one of them;
    RankError on the other ranks then.
    """
    with ExitStack() as stack:
        agreement = agreement or Agreement(ALONE, rejects=False)
        with agreement.together():
            for path in paths if agreement.peers.is_first else ():
                stack.enter_context(_locked(path))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of one folder.

    Raises:
        FolderInUseError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except (Timeout, RuntimeError):
        # RuntimeError: this thread itself holds it already.
        raise FolderInUseError(
            f"{folder} is in use by {_owner(folder)}; wait until that run has ended, stop it, or choose another folder."
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with writing(folder / OWNER):
            (folder / OWNER).write_text(json.dumps(owner) + "\n")
        remove_unfinished(folder)
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    """The process that holds the lock, in words."""
    try:
        owner = json.loads((folder / OWNER).read_text())
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has the lock, but has not yet said who it is
