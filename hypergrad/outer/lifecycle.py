"""The calls of callbacks when a run begins and when it breaks off."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypergrad.callback.base import Callback, Result, Run
from hypergrad.core.ranks import Peers
from hypergrad.outer.agreement import Agreement
from hypergrad.outer.journal import Journal
from hypergrad.outer.termination import asking, terminable


@contextmanager
def running(callbacks: Sequence[Callback], run: Run, journal: Journal) -> Iterator[list[Callback]]:
    """Start the callbacks; if an error or a signal ends the block, call `on_error` of those that did start.

    The block gets them, for `end`.

    Also raised, by what it calls: the error that ended the block, after `on_error` of the callbacks.
    """
    started: list[Callback] = []
    agreement = journal.agreement
    with asking(agreement):
        try:
            with terminable(agreement):
                with agreement.together():
                    for callback in callbacks:
                        callback.on_start(run)
                        started.append(callback)
                yield started
        except BaseException as raised:
            error = agreement.cause(raised)
            for callback in started:
                try:
                    callback.on_error(error, journal.last)
                except Exception as further:
                    # The first error is the one that is raised, and the other callbacks still save what they can.
                    error.add_note(f"{type(callback).__name__} could not save what was reached: {further}")
            agreement.wait()
            if error is raised:
                raise
            raise error from raised


def end(started: list[Callback], result: Result) -> None:
    """Call `on_end` of the callbacks, and remove each one from the list then, so that it hears of no later error."""
    while started:
        started[0].on_end(result)
        del started[0]


@contextmanager
def blaming(agreement: Agreement) -> Iterator[None]:
    """A block whose errors, if another rank failed first, are one that says so.

    Also raised, by what it calls: the error of the block, or the one in its place.
    """
    try:
        yield
    except BaseException as raised:
        error = agreement.cause(raised)
        if error is raised:
            raise
        raise error from raised


@contextmanager
def shown_once(peers: Peers) -> Iterator[None]:
    """Show the warnings of the block on the first rank only, as the others have the same."""
    if peers.is_first:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
