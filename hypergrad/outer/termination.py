"""A request to end, as an exception that leaves time to save what was reached."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypergrad.core.errors import Terminated
from hypergrad.outer.agreement import Agreement


@contextmanager
def terminable(agreement: Agreement) -> Iterator[None]:
    """Raise `Terminated` at SIGTERM, as Ctrl-C raises `KeyboardInterrupt`; only the main thread can.

    On many ranks neither raises at once, see `asking`.
    """

    def terminate(*_: Any) -> None:
        raise Terminated("The process was asked to end (SIGTERM).")

    if agreement.peers.world > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def asking(agreement: Agreement) -> Iterator[None]:
    """Note SIGINT and SIGTERM in an agreement, until all ranks hear of them; nothing else happens in the block.

    If one rank left in the middle of a step, the others would wait for it.
    """

    def note(number: int, frame: object) -> None:
        agreement.asked = max(agreement.asked, number)

    if agreement.peers.world == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
