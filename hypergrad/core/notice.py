"""Short messages to the person who waits for a run, shown by whatever shows its progress."""

from collections.abc import Callable

_LISTENERS: list[Callable[[str], None]] = []


def listen(listener: Callable[[str], None]) -> Callable[[], None]:
    """Pass all messages to a function; returns what ends that, and may be called more than once."""
    _LISTENERS.append(listener)

    def stop() -> None:
        if listener in _LISTENERS:
            _LISTENERS.remove(listener)

    return stop


def notify(message: str) -> None:
    """Pass a message to those who listen; nobody has to."""
    for listener in list(_LISTENERS):
        listener(message)
