"""A request to end, as an exception that leaves time to save what was reached."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypergrad.core.errors import Terminated


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM, as Ctrl-C raises `KeyboardInterrupt`; only the main thread can."""

    def terminate(*_: Any) -> None:
        raise Terminated("The process was asked to end (SIGTERM).")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
