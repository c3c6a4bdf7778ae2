"""What callbacks are told of how a run begins and breaks off."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypergrad.callback.base import Callback, Run
from hypergrad.outer.journal import Journal
from hypergrad.outer.termination import terminable


@contextmanager
def running(callbacks: Sequence[Callback], run: Run, journal: Journal) -> Iterator[None]:
    """Start the callbacks, and tell those that did start if an error or a signal ends what is done within.

    Also raised, by what it calls: whatever ended it, after the callbacks have kept what was reached.
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
                # What stopped the run is told, and the other callbacks keep what they can.
                error.add_note(f"{type(callback).__name__} could not keep what was reached: {further}")
        raise
