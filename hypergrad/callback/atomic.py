"""Files that are written whole or not at all."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_MARK = ".part"
"""The end of the names of unfinished files."""
_UNFINISHED = re.compile(rf"\.\d+-[0-9a-f]+{re.escape(_MARK)}$")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context that writes a file of a run; an error of the disk names the file, and says what to do.

    Raises:
        OSError: with the same number as the error of the disk.
        RuntimeError: another error of torch's writer.

    Also raised, by what it calls: KeyboardInterrupt if Ctrl-C or SIGTERM came while torch wrote.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch's writer hides the error of the disk, or the interrupt, behind its own.
        if isinstance(error.__context__, KeyboardInterrupt) and not isinstance(error, OSError):
            raise error.__context__ from None
        of_disk = error if isinstance(error, OSError) else error.__context__
        if not isinstance(of_disk, OSError) or (of_disk.errno not in _FULL and of_disk.filename is not None):
            raise
        free = shutil.disk_usage(path.parent).free
        remedy = f", and {free:,} bytes are free there. Free some space" if of_disk.errno in _FULL else ""
        raise OSError(
            of_disk.errno,
            f"{of_disk.strerror}: {path} could not be written{remedy}; a run goes on from its last state by the same "
            f"call of hg.fit, or by resume={path.parent}",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the name `path`, on disk, when the block ends; after an error, `path` is unchanged.

    Its name until then is its own, so that two processes never write to the same unfinished file.
    """
    unfinished = _unfinished(path)
    try:
        with writing(path):
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            _sync(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def replace_together(writers: Mapping[Path, Callable[[IO[bytes]], object]]) -> None:
    """Replace files of one folder that belong together; after an error of a writer, all are unchanged.

    All are on disk before the first takes its name. The last file is missing until the others have theirs, so that
    a process that is killed in between never leaves it beside files that it does not belong to.

    Args:
        writers: what writes a file, by its path.

    Also raised, by what it calls: OSError if the disk is full or cannot be written; the error of a writer.
    """
    unfinished, last = {path: _unfinished(path) for path in writers}, [*writers][-1]
    try:
        for path, write in writers.items():
            with writing(path), unfinished[path].open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        with writing(last):
            last.unlink(missing_ok=True)
            for path, written in unfinished.items():
                written.replace(path)
            _sync(last.parent)
    except BaseException:
        for written in unfinished.values():
            written.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in a folder."""
    for path in folder.glob(f"*{_MARK}"):
        if _UNFINISHED.search(path.name):
            path.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """A name for a file until it is whole, which no other process has."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_MARK}")


def _sync(folder: Path) -> None:
    """Force a rename to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
