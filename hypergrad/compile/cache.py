"""What is made once for an owner, such as a program for a problem, and found again by a key."""

from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from hypergrad.compile.tracing import CannotCompileError

T = TypeVar("T")


class WeakCache(Generic[T]):
    """Values by owner and key, or the reason why there is none; both go when the owner goes.

    A value must not refer to its owner, which would then never go. A reason is kept as a message, because the traceback
    of an exception refers to the owner.
    """

    def __init__(self) -> None:
        self._entries: WeakKeyDictionary[Any, dict[Hashable, T | _Refusal]] = WeakKeyDictionary()

    def get(self, owner: Any, key: Hashable, make: Callable[[], T]) -> T:
        """The value of this owner and key, made at the first call.

        Args:
            owner: what the value is made for. The value is made anew each time if no weak reference to it is possible.
            key: what else the value holds for; see `Identity` for objects that do not compare by value.
            make: makes the value.

        Returns:
            The value.

        Raises:
            CannotCompileError: if `make` raises it, now or at an earlier call, or after `refuse`.
        """
        entries = self._of(owner)
        if key not in entries:
            try:
                entries[key] = make()
            except CannotCompileError as error:
                entries[key] = _Refusal(str(error))
        found = entries[key]
        if isinstance(found, _Refusal):
            raise CannotCompileError(found.reason)
        return found

    def refuse(self, owner: Any, key: Hashable, reason: str) -> None:
        """Replace a value by the reason why it is not to be used again."""
        self._of(owner)[key] = _Refusal(reason)

    def _of(self, owner: Any) -> dict[Hashable, "T | _Refusal"]:
        try:
            return self._entries.setdefault(owner, {})
        except TypeError:  # no weak reference to it is possible
            return {}


class _Refusal(NamedTuple):
    reason: str


class Identity:
    """An object as a part of a key that only this very object matches; the key keeps it alive, so that its id stays."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)
