"""The files of a recorded run; one that holds something else is refused by its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

# yaml is imported where it is used, because hypergrad imports this file.
_REMEDY = "repair the file, or leave this run out."
_SHOWN = 60
"""The most characters of a strange value in a message."""


def rows(path: Path) -> list[dict[str, Any]]:
    """The records in a file; none if there is no such file.

    The last line of a run that is being written, or was killed, may be incomplete; it is left out.

    Also raised, by what it calls: ValueError if it cannot be read, or holds something else.
    """
    lines = _bytes(path).splitlines() if path.exists() else []
    found = [_parsed(json.loads, line, path) for line in lines if line.endswith(b"}")]
    for row in found:
        _require_numbers(row, path, "step")
    return found


def summary(path: Path) -> dict[str, Any]:
    """The summary in a file; empty if there is no such file.

    Also raised, by what it calls: ValueError if it cannot be read, or holds something else.
    """
    found = mapping(path)
    for when in ("first", "best", "last"):
        if found.get(when) is not None:
            _require_numbers(found[when], path)
    return found


def labels(path: Path) -> dict[str, list[str]]:
    """The names of the entries of hyperparameters in a file; empty if there is no such file.

    Raises:
        ValueError: if it holds something else.
    """
    found = mapping(path)
    for value in found.values():
        if not isinstance(value, list):
            raise ValueError(f"{path} cannot be read ({_shown(value)} is no list of names); {_REMEDY}")
    return found


def yaml_content(path: Path) -> Any:
    """What a file of YAML holds; None if there is no such file.

    Also raised, by what it calls: ValueError if it cannot be read.
    """
    import yaml

    return _parsed(yaml.safe_load, _bytes(path), path) if path.exists() else None


def mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file of JSON; empty if there is no such file.

    Raises:
        ValueError: if it holds something else.
    """
    content = _parsed(json.loads, _bytes(path), path) if path.exists() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} cannot be read ({_shown(content)} is no mapping); {_REMEDY}")
    return content


def _require_numbers(row: Any, path: Path, *keys: str) -> None:
    """Require that a record in a file is a mapping to numbers, with these keys.

    Raises:
        ValueError: if it holds something else.
    """
    if not isinstance(row, dict) or not row.keys() >= {*keys} or not all(map(_is_numeric, row.values())):
        having = f" with a {' and '.join(keys)}" * bool(keys)
        raise ValueError(f"{path} cannot be read ({_shown(row)} is no record of numbers{having}); {_REMEDY}")


def _is_numeric(value: Any) -> bool:
    is_list = isinstance(value, list)
    return all(map(_is_numeric, value)) if is_list else value is None or isinstance(value, int | float)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from None


def _parsed(load: Callable[[bytes], Any], content: bytes, path: Path) -> Any:
    """The content of a file.

    Raises:
        ValueError: if it cannot be parsed.
    """
    import yaml

    try:
        return load(content)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read ({reason}); {_REMEDY}") from None
