"""Files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_MARK = ".part"
"""The end of the names of unfinished files."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the name `path`, on disk, when the block ends; after an error, `path` is unchanged.

    Its name until then is its own, so that two processes never write to the same unfinished file.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_MARK}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove what killed processes left; `pattern` is a glob for the names of the finished files."""
    for path in folder.glob(f"{pattern}.*{_MARK}"):
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Force a rename to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
