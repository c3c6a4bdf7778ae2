"""The calls of callbacks when a run begins and when it breaks off."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypergrad.callback.base import Callback, Run
from hypergrad.outer.journal import Journal
from hypergrad.outer.termination import terminable


@contextmanager
def running(callbacks: Sequence[Callback], run: Run, journal: Journal) -> Iterator[None]:
    """Start the callbacks; if an error or a signal ends the block, call `on_error` of those that did start.

    Also raised, by what it calls: the error that ended the block, after `on_error` of the callbacks.
    """
    started: list[Callback] = []
    try:
        with terminable():
            for callback in callbacks:
                callback.on_start(run)
                started.append(callback)
            yield
    except BaseException as error:
        for callback in started:
            try:
                callback.on_error(error, journal.last)
            except Exception as further:
                # The first error is the one that is raised, and the other callbacks still save what they can.
                error.add_note(f"{type(callback).__name__} could not save what was reached: {further}")
        raise
