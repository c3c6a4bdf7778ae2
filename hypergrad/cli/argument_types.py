"""The values of a config beside the types that its functions and classes declare, before one of them is called."""

import inspect
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hypergrad.cli.permission import located

_OURS = ("hypergrad.", "torch.")
"""Whose declared types are right. Python decides about those of others, which may say less than they accept."""
_WIDEST = 2**63
"""Of an integer that torch can hold."""
_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path", type(None): "null"}
_WAYS: dict[str, Any] = {
    "_target_": str,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_recursive_": bool,
    "_partial_": bool,
}
"""How Hydra builds an object."""
_UNKNOWN = ("${", "???")
"""The beginnings of values that are not known yet; whoever builds the config says so."""


def require_types(config: Any, *keys: str) -> None:
    """Require that each value of a config has the type that its function or class declares.

    Args:
        config: nested dicts and lists of plain values, with resolved interpolations.
        keys: that lead to it.

    Raises:
        TypeError: if one has another type.
    """
    if isinstance(config, list):
        for index, part in enumerate(config):
            require_types(part, *keys, str(index))
    if not isinstance(config, dict):
        return
    owner = _owner(config.get("_target_"))
    hints = {} if owner is None else _hints(owner)
    _require_known_ways(config, *keys)
    for key, value in config.items():
        hint, default = hints.get(key, (Any, None))
        if not (_fits(value, hint) or (type(value) is type(default) and value == default)):
            raise TypeError(
                f"{'.'.join(keys)}: {getattr(owner, '__name__', owner)}.{key} must be {_described(hint)}, but it is "
                f"{value!r} of type {type(value).__name__}{_too_wide(value)}."
            )
        require_types(value, *keys, str(key))


def _require_known_ways(config: dict[str, Any], *keys: str) -> None:
    """Require that the keys by which Hydra is told how to build an object have values that it knows.

    Raises:
        TypeError: if one has not.
    """
    for key, known in _WAYS.items():
        value = config.get(key)
        is_given = key in config if key == "_target_" else value is not None
        if is_given and not _fits(value, known):
            raise TypeError(f"{'.'.join((*keys, key))} must be {_described(known)}, but it is {value!r}.")


def _owner(target: Any) -> Any:
    """The function or class that a target names, if it is one whose types are right."""
    if not isinstance(target, str) or not target.startswith(_OURS):
        return None
    found = located(target)
    return found if callable(found) else None


def _hints(owner: Any) -> dict[str, tuple[Any, Any]]:
    """Type and default of each parameter; a type that cannot be evaluated is Any."""
    try:
        parameters = inspect.signature(owner, eval_str=True).parameters
    except NameError:  # of a type that is imported for type checkers only
        parameters = inspect.signature(owner).parameters
    except (TypeError, ValueError):
        return {}
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return {name: (Any if isinstance(p.annotation, str) else p.annotation, p.default) for name, p in named.items()}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of a config can be given where a type is declared."""
    if (isinstance(value, dict) and "_target_" in value) or (isinstance(value, str) and value.startswith(_UNKNOWN)):
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    kind = origin or hint
    if kind in (int, float):
        is_number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return is_number and not (isinstance(value, int) and abs(value) >= _WIDEST)
    if kind in (bool, str, Path, None, type(None)):
        return isinstance(value, {Path: str, None: type(None)}.get(kind, kind))
    if kind in (list, tuple, Sequence):
        return isinstance(value, list) and _all_fit(value, inner, is_row=kind is tuple and Ellipsis not in inner)
    if kind in (dict, Mapping):
        return isinstance(value, dict) and _all_fit(list(value.values()), inner[1:], is_row=False)
    return not (isinstance(kind, type) and kind.__module__.startswith(("hypergrad", "torch")))


def _all_fit(values: list[Any], hints: tuple[Any, ...], *, is_row: bool) -> bool:
    """Whether all values fit the first type; with `is_row`, each of them its own."""
    if not is_row:
        return all(_fits(value, hints[0]) for value in values) if hints else True
    return len(values) == len(hints) and all(map(_fits, values, hints))


def _described(hint: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_described, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    kind = type(None) if hint is None else origin or hint
    if kind in (list, tuple, Sequence):
        of = f", each {_described(inner[0])}" if inner else ""
        return f"a list of {len(inner)}{of}" if kind is tuple and Ellipsis not in inner else f"a list{of}"
    if kind in (dict, Mapping):
        return "a value for each name"
    return _NAMES.get(kind) or f"a {getattr(kind, '__name__', kind)}"


def _too_wide(value: Any) -> str:
    is_wide = isinstance(value, int) and abs(value) >= _WIDEST
    return ", which has more than 64 bits; write a number that is not an integer with a point, as in 1.0e30" * is_wide
