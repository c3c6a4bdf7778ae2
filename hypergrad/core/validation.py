"""Checks of the fields of a strategy; each raises for a bad value and names the field."""

import math
from typing import Any

import torch


def require_int(owner: object, name: str, *, least: int) -> None:
    """Require that field `name` of `owner` is an integer ≥ `least`.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is below `least`.
    """
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{type(owner).__name__}.{name} must be an integer, but it is {_shown(value)}.")
    if value < least:
        raise ValueError(f"{type(owner).__name__}.{name} must be at least {least}, but it is {value}.")


def require_real(
    owner: object,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Require that field `name` of `owner` is a finite number, > `above`, ≥ `least`, < `below`, ≤ `most` where given.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not finite or out of range.
    """
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(owner).__name__}.{name} must be a number, but it is {_shown(value)}.")
    if not math.isfinite(value):
        raise ValueError(f"{type(owner).__name__}.{name} must be finite, but it is {value}.")
    if above is not None and not value > above:
        raise ValueError(f"{type(owner).__name__}.{name} must be greater than {above:g}, but it is {value:g}.")
    if least is not None and not value >= least:
        raise ValueError(f"{type(owner).__name__}.{name} must be at least {least:g}, but it is {value:g}.")
    if below is not None and not value < below:
        raise ValueError(f"{type(owner).__name__}.{name} must be below {below:g}, but it is {value:g}.")
    if most is not None and not value <= most:
        raise ValueError(f"{type(owner).__name__}.{name} must be at most {most:g}, but it is {value:g}.")


def require_representable(where: str, value: float, dtype: torch.dtype) -> None:
    """Require that a number stays finite, and not zero if it is not, in the dtype of the parameters.

    Args:
        where: what an error calls the number.
        value: the number.
        dtype: of the parameters.

    Raises:
        ValueError: if it does not.
    """
    rounded = torch.tensor(value, dtype=torch.float64).to(dtype).item()
    if not math.isfinite(rounded) or (rounded == 0) != (value == 0):
        limits = torch.finfo(dtype)
        raise ValueError(
            f"{where} = {value:g} is {rounded:g} in {dtype}, the dtype of the parameters, whose numbers lie between "
            f"{limits.tiny:.0e} and {limits.max:.0e}. Change the units of the loss or the parameters, or use float64."
        )


def require_compile(owner: object) -> None:
    """Require that field `compile` of `owner` is a bool or "auto".

    Raises:
        TypeError: if it is neither.
    """
    value: Any = owner.compile  # type: ignore[attr-defined]
    if value != "auto" and not isinstance(value, bool):
        raise TypeError(f'{type(owner).__name__}.compile must be true, false or "auto", but it is {_shown(value)}.')


def require_instance(owner: object, name: str, kind: type) -> None:
    """Require that field `name` of `owner` is an instance of `kind`.

    Raises:
        TypeError: if it is not.
    """
    value = getattr(owner, name)
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(
            f"{type(owner).__name__}.{name} must be {article} {kind.__name__}, but it is {_met(value, kind)}."
        )


def _met(value: Any, kind: type) -> str:
    """A value that is not of a kind, and what to do if that can be guessed."""
    if isinstance(value, type):
        remedy = f"; call it: {value.__name__}(…)" if issubclass(value, kind) else ""
        return f"the class {value.__name__}{remedy}"
    if isinstance(value, str) and kind.__module__ != "builtins":
        return f"{_shown(value)}; give an object, because names are for the command line"
    return _shown(value)


def _shown(value: Any) -> str:
    lines = repr(value).splitlines()
    return f"{lines[0]}{' …' if len(lines) > 1 else ''} of type {type(value).__name__}"
