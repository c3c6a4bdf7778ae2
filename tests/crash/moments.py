"""A forked process in which the calls that change files are counted, and something happens at one of them.

A write counts once for each call of the operating system, and can be cut in the middle.
"""

import builtins
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATHS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir")
_DESCRIPTORS = ("fsync",)
_SECONDS = 60
"""After this a child counts as hung. A judgement: an undisturbed one takes less than two."""


class Moments:
    """Counts the calls that change files below a folder.

    Args:
        folder: the folder.
        act: what happens at a call, given its number from 0, its name, what does a part of it (for a write, half), and
            the path for which the operating system would name it in an error, or None.
    """

    def __init__(self, folder: Path, act: Callable[[int, str, Callable[[], object], Any], None]) -> None:
        self.folder, self.act, self.count = str(folder), act, 0

    def reach(self, name: str, part: Callable[[], object] = lambda: None, path: Any = None) -> None:
        """Count a call that is about to be made."""
        number, self.count = self.count, self.count + 1
        self.act(number, name, part, path)

    def install(self) -> None:
        """Count from here on, to the end of the process."""
        for name in _PATHS:
            setattr(os, name, self._counted(name, getattr(os, name), lambda path: self._is_inside(path)))
        for name in _DESCRIPTORS:
            setattr(os, name, self._counted(name, getattr(os, name), lambda _: True))
        opened = self._opened(io.open)
        setattr(io, "open", opened)  # noqa: B010 (pathlib looks it up there)
        setattr(builtins, "open", opened)  # noqa: B010

    def _is_inside(self, path: Any) -> bool:
        return not isinstance(path, int) and os.fsdecode(path).startswith(self.folder)

    def _counted(self, name: str, call: Any, counts: Callable[[Any], bool]) -> Any:
        def counted(first: Any, *rest: Any, **named: Any) -> Any:
            if counts(first):
                self.reach(name, path=None if isinstance(first, int) else first)
            return call(first, *rest, **named)

        return counted

    def _opened(self, original: Any) -> Any:
        moments = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                half = bytes(data[: len(data) // 2])
                moments.reach("write", lambda: io.FileIO.write(self, half))
                return super().write(data)

            def truncate(self, size: int | None = None) -> int:
                moments.reach("truncate")
                return super().truncate(size)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *text: Any, **named: Any) -> Any:
            if not set(mode) & set("wax+") or not self._is_inside(file):
                return original(file, mode, buffering, *text, **named)
            self.reach("open", path=file)
            raw = Raw(file, mode.replace("t", "").replace("b", ""))
            if buffering == 0:
                return raw
            file = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return file if "b" in mode else io.TextIOWrapper(file, *text, **named)

        return opened


@dataclass(frozen=True)
class End:
    """How a child ended: by a signal, or with an exit code; the calls that it made, and what it said."""

    signal: int
    code: int
    calls: int
    said: str


def in_a_child(work: Callable[[], object], folder: Path, act: Callable[..., None], log: Path) -> End:
    """Do the work in a forked process, with `act` at each call that changes a file below the folder."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(_SECONDS)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(os.dup(2), "w"), write_through=True)
            counted = os.open(f"{log}.calls", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

            def noted(number: int, name: str, part: Callable[[], object], path: Any) -> None:
                os.pwrite(counted, b"%12d" % (number + 1), 0)
                act(number, name, part, path)

            Moments(folder, noted).install()
            work()
            code = 0
        except BaseException as error:
            print("".join(traceback.format_exception(error)))
            code = 3 if isinstance(error, KeyboardInterrupt) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    calls = int(Path(f"{log}.calls").read_text() or 0)
    by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return End(by, -1 if by else os.WEXITSTATUS(status), calls, log.read_text())


def nothing(number: int, name: str, part: Callable[[], object], path: Any) -> None:
    """Count only."""


def killed(at: int) -> Callable[..., None]:
    """SIGKILL before a call, or in the middle of it if it is a write."""

    def act(number: int, name: str, part: Callable[[], object], path: Any) -> None:
        if number == at:
            part()
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def signalled(at: int, number_of_signal: int, again_after: int | None = None) -> Callable[..., None]:
    """A signal before a call, and perhaps once more some calls later."""

    def act(number: int, name: str, part: Callable[[], object], path: Any) -> None:
        if number == at or (again_after is not None and number == at + again_after):
            os.kill(os.getpid(), number_of_signal)

    return act


def full(at: int, until: int | None = None, kind: int = errno.ENOSPC) -> Callable[..., None]:
    """The disk is full from a call on, until another one: writes are cut in the middle, and nothing new is made."""

    def act(number: int, name: str, part: Callable[[], object], path: Any) -> None:
        if at <= number and (until is None or number < until) and name in ("open", "write", "mkdir", "fsync"):
            part()
            raise OSError(kind, os.strerror(kind), path and os.fsdecode(path))

    return act
