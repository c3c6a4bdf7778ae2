"""What users can rely on, as lines of text: public names with their parameters, config groups with their keys.

`python tests/public_api.py` writes public_api.txt, which is done at each release and at no other time. Until the next
one, nothing in it may go that was not already deprecated in it: docs/stability.md.
"""

import enum
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

import hypergrad

ROOT = Path(__file__).parent.parent
RECORD = Path(__file__).with_suffix(".txt")
_ATTRIBUTES = (property, cached_property)
GONE = "!"
"""Marks what is deprecated, in front of a name, parameter or key."""


def lines_of(names: list[str], module: Any, *, inherited: bool = False) -> Iterator[str]:
    """A line for each public name, and for each method and property that a class defines, or inherits as well."""
    for name in names:
        found = getattr(module, name)
        yield f"{_mark(found)}{name}{_call(found)}"
        if not (inspect.isclass(found) and found.__module__.startswith(module.__name__)):
            continue
        if issubclass(found, enum.Enum):
            yield from (f"{name}.{member}" for member in found.__members__)
        for part in dir(found) if inherited else vars(found):
            member = getattr(found, part, None)
            if part[0] != "_" and (isinstance(member, _ATTRIBUTES) or inspect.isroutine(member)):
                yield f"{_mark(member)}{name}.{part}{_call(member)}"


def configs() -> Iterator[str]:
    """A line for each config of a group, with its keys."""
    for path in [ROOT / "configs" / "config.yaml", *sorted((ROOT / "configs").glob("*/*.yaml"))]:
        text = path.read_text()
        keys = sorted(str(key) for key in yaml.safe_load(text) or {} if str(key)[0] != "_" and key != "defaults")
        marked = [GONE * bool(re.search(rf"^{key}:.*# deprecated", text, flags=re.M)) + key for key in keys]
        mark = GONE if text.startswith("# deprecated") else ""
        yield f"{mark}{path.relative_to(ROOT).with_suffix('')}: {', '.join(marked)}".rstrip(": ")


def broken(recorded: list[str], current: list[str]) -> list[str]:
    """What the recorded lines promise, and the current ones do not keep."""
    now = dict(map(_split, current))
    problems = []
    for line in recorded:
        name, promised = _split(line)
        if name.startswith(GONE):
            continue
        held = now.get(name, now.get(GONE + name))
        if held is None:
            problems.append(f"{name} is gone, and was not deprecated in the last release")
        else:
            problems += [f"{name}: {problem}" for problem in _differences(promised, held)]
    return problems


def _differences(promised: str, held: str) -> Iterator[str]:
    if promised[:1] != "(":
        kept = {key.lstrip(GONE) for key in held.split(", ")}
        yield from (f"{key} is gone" for key in promised.split(", ") if key[:1] != GONE and key not in kept)
        return
    old, new = _parameters(promised), _parameters(held)
    accepts_any = any(one.name.startswith("**") for one in new)
    known = {one.name: one for one in new}
    for one in old:
        if not one.gone and one.name not in known and not (accepts_any and one.by_name_only):
            yield f"the parameter {one.name} is gone, and was not deprecated in the last release"
    required = {one.name for one in old if not one.optional}
    yield from (f"it now requires {one.name}" for one in new if not one.optional and one.name not in required)
    order = [one.name for one in old if not one.by_name_only and one.name in known]
    if order != [one.name for one in new if not one.by_name_only][: len(order)]:
        yield f"the order of its parameters was {', '.join(order)}"


def _parameters(text: str) -> list[SimpleNamespace]:
    found, by_name_only = [], False
    for token in filter(None, text.strip("()").split(", ")):
        by_name_only |= token.lstrip(GONE).startswith("*")
        if token != "*":
            name = token.strip(GONE + "=")
            optional = token.endswith("=") or name.startswith("*")
            gone = token.startswith(GONE)
            found.append(SimpleNamespace(name=name, optional=optional, gone=gone, by_name_only=by_name_only))
    return found


def _split(line: str) -> tuple[str, str]:
    name, rest = re.fullmatch(r"([^(:]+)(?:: )?(.*)", line).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return name, rest


def _mark(found: Any) -> str:
    return GONE if hasattr(getattr(found, "fget", found), "__deprecated__") else ""


def _call(found: Any) -> str:
    """The parameters of what this library defines and can be called."""
    ours = str(getattr(found, "__module__", "")).startswith(hypergrad.__name__)
    if not ours or not callable(found) or inspect.isclass(found) and issubclass(found, enum.Enum | Exception):
        return ""
    made = inspect.isclass(found) and inspect.isfunction(found.__init__)
    parameters = list(inspect.signature(found.__init__ if made else found).parameters.values())[made:]
    tokens, stars = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not stars:
            tokens.append("*")
        stars |= one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        gone = re.search(rf"^\s*{one.name}: deprecated\b", found.__doc__ or "", flags=re.M)
        prefix = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        tokens.append(f"{GONE if gone else ''}{prefix}{one.name}{'' if one.default is one.empty else '='}")
    return f"({', '.join(tokens)})"


def current(*, inherited: bool = True) -> list[str]:
    """All lines, as of the checkout."""
    return [*lines_of(dir(hypergrad), hypergrad, inherited=inherited), *configs()]


if __name__ == "__main__":
    RECORD.write_text("\n".join(current(inherited=False)) + "\n")
    sys.stdout.write(f"{RECORD} is that of {hypergrad.__version__}\n")
