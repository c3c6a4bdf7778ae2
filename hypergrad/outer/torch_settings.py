"""Settings of torch's optimisers and schedulers that torch does not check, or not in words."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def require_numbers(role: str, owner: object, settings: Mapping[str, Any]) -> None:
    """Require that no setting is NaN, and no learning rate infinite, with which torch goes on.

    Args:
        role: the argument of `Trainer` that made the owner.
        owner: an optimiser or a scheduler.
        settings: by name.

    Raises:
        ValueError: if one is.
    """
    for name, value in settings.items():
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{role}: {type(owner).__name__}.{name} must be a number, but it is nan; give one.")
        if name == "lr" and isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{role}: {type(owner).__name__}.lr must be finite, but it is {value}; lower the lr.")


@contextmanager
def explained_division(scheduler: object) -> Iterator[None]:
    """A context in which a scheduler steps, which may divide by one of its settings.

    Raises:
        ValueError: if it divides by zero.
    """
    try:
        yield
    except ZeroDivisionError as error:
        zeros = [name for name, value in vars(scheduler).items() if type(value) is int and value == 0]
        raise ValueError(
            f"scheduler: {type(scheduler).__name__} divides by zero where {' or '.join(zeros) or 'a setting'} is 0; "
            "give an integer of at least 1."
        ) from error
