"""The public names of what a config builds, also where it names the module that held it in an earlier release."""

import difflib
import pydoc
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import hypergrad

_RENAMED = {"hypergrad.callback.checkpoint.Checkpoint": "hypergrad.StateSaver"}
_LOOKUP = "hydra.utils.get_"


def targets(config: Any, *keys: str | int) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where a config names objects, and what it should name there.

    Args:
        config: nested dicts and lists.
        keys: that lead to it.

    Yields:
        The keys of a `_target_`, or of the `path` of a `hydra.utils.get_object`, and the target by its public name.

    Raises:
        ValueError: if it names an object of this library that does not exist.
    """
    if isinstance(config, list):
        for index, part in enumerate(config):
            yield from targets(part, *keys, index)
    elif isinstance(config, dict):
        named = ("_target_", "path") if str(config.get("_target_")).startswith(_LOOKUP) else ("_target_",)
        for key, part in config.items():
            if key in named and isinstance(part, str):
                try:
                    yield (*keys, key), public_target(part)
                except ValueError as error:
                    raise ValueError(f"{'.'.join(map(str, (*keys, key)))}: {error}") from None
            else:
                yield from targets(part, *keys, key)


@cache  # so that each old path is warned of once
def public_target(target: str) -> str:
    """The path of an object by its public name, `hypergrad.Ridge`, if it is of this library and has one.

    Raises:
        ValueError: if it is of this library and does not exist.
    """
    if not target.startswith("hypergrad."):
        return target
    name = target.rpartition(".")[2]
    public = _RENAMED.get(target, f"hypergrad.{name}")
    known = [f"hypergrad.{each}" for each in dir(hypergrad)]
    if public in known:
        if public != target:
            warnings.warn(
                f"{target} is now {public}; the old path works in this release, and not in the next.",
                FutureWarning,
                stacklevel=2,
            )
        return public
    if pydoc.locate(target) is None:
        near = difflib.get_close_matches(public, known, n=1)
        meant = f"Did you mean {near[0]}?" if near else "dir(hypergrad) lists the public names."
        raise ValueError(f"hypergrad has nothing of the name {target}. {meant}")
    return target
