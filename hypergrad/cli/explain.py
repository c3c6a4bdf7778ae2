"""Errors in a few lines: the message, where the error happened, and what the user may have meant."""

import difflib
import re
import sys
import traceback
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf.errors import InterpolationResolutionError

from hypergrad.core.errors import HypergradError, RankError

_FOOTER = "HYDRA_FULL_ERROR=1 shows the traceback."
_EXTRAS = {"joblib": "joblib", "submitit": "slurm", "ray": "ray"}
"""The extra of this package that installs each launcher."""

_LIBRARIES = ("site-packages", "dist-packages", "/lib/python", str(Path(__file__).parents[1]))
"""Parts of paths that are not the user's own code."""


def explain(error: BaseException) -> str:
    """A message for the user at the command line, without a traceback.

    If a config key or an argument is misspelt, it names the key and the choices. If the error comes from the user's own
    code, it names the line.
    """
    if isinstance(error, KeyboardInterrupt):
        return f"stopped: {str(error) or 'interrupted'}"
    causes = _chain(error)
    lines = [f"error: {_first_line(error, causes)}"]
    lines += [hint for cause in causes if (hint := _choices(cause) or _extra(cause))][:1]
    lines += [note for cause in causes for note in getattr(cause, "__notes__", [])]
    place = _users_frame(causes[-1])
    if place:
        lines.append(f"  at {place}")
    return "\n".join([*lines, _FOOTER])


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _first_line(error: BaseException, causes: list[BaseException]) -> str:
    root = causes[-1]
    if type(error).__name__ == "OverrideParseException":
        return _unread(error)
    # An error of this library may have been raised again with a longer message.
    is_longest = _is_about_config(error) or isinstance(error, HypergradError | RankError)
    says_most = error if is_longest else next(filter(_is_raised_here, causes), root)
    message = str(says_most).strip()
    if not message or isinstance(says_most, KeyError | AttributeError | ImportError) and not _is_about_config(error):
        message = f"{type(root).__name__}: {message}"
    if isinstance(says_most, ModuleNotFoundError) and (missing := _attribute(says_most)):
        message = missing
    elif isinstance(says_most, ModuleNotFoundError):
        message += ". `python -m` looks in the current folder: run it in the folder that holds the module."
    key = _config_key(causes)
    return f"{key}: {message}" if key else message


def _unread(error: Any) -> str:
    """The message for an argument that Hydra cannot read, whose own message may leave the argument out."""
    why = str(error).removeprefix(f"Error parsing override '{error.override}'\n").strip().splitlines()[0]
    return (
        f"{error.override!r} cannot be read as KEY=VALUE: {why}. A value with special characters needs quotes, once "
        "for Hydra and once for the shell: KEY=\"'a=b'\"."
    )


def _is_raised_here(error: BaseException) -> bool:
    """Whether this library raised an error, and not only let it pass."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_LIBRARIES[-1])


def _attribute(error: ModuleNotFoundError) -> str:
    """The message if a module was found, but not the name in it; else ""."""
    module, _, name = (error.name or "").rpartition(".")
    if module not in sys.modules:
        return ""
    known = [key for key in vars(sys.modules[module]) if not key.startswith("_")]
    return f"The module {module} has no {name!r}. {_suggestion(name, known)}"


def _is_about_config(error: BaseException) -> bool:
    """Whether Hydra rejected the config itself; then its own message says more than the cause."""
    return type(error).__name__ in ("ConfigCompositionException", "MissingConfigException", "OverrideParseException")


def _config_key(causes: list[BaseException]) -> str:
    """The config node whose object could not be built, or ""."""
    for cause in causes:
        if type(cause).__name__ == "InstantiationException":
            for line in str(cause).splitlines():
                if line.startswith("full_key: "):
                    return line.removeprefix("full_key: ")
    return ""


def _choices(cause: BaseException) -> str:
    """The choices, for a misspelt config key or keyword argument."""
    parent = getattr(cause, "parent_node", None)
    if isinstance(cause, InterpolationResolutionError):
        return ""
    if parent is not None and hasattr(parent, "keys"):
        wrong, known = str(getattr(cause, "key", "")), [str(key) for key in parent.keys() if key != "hydra"]  # noqa: SIM118
        if "outer_steps" in known:
            known.append("experiment")  # a group at the top level without a key in the config
        inside = [f"{name}.{wrong}" for name in known if wrong in _keys(parent._get_node(name, validate_access=False))]
        if inside:
            return f"Did you mean {' or '.join(inside)}?"
        return _suggestion(wrong, known)
    if "looks like a config group override" in str(cause):
        return "To set a value, leave out @ and what follows it."
    if "Additional config directory" in str(cause):
        return "--config-dir must name a folder that exists."
    options, wrong = getattr(cause, "options", None), str(getattr(cause, "missing_cfg_file", "")).rpartition("/")[2]
    if options and (near := difflib.get_close_matches(wrong, options, n=1)):
        return f"Did you mean {near[0]!r}?"
    marker = "got an unexpected keyword argument "
    if isinstance(cause, TypeError) and marker in str(cause):
        wrong = str(cause).split(marker)[1].split("'")[1]
        owner = _class_named(str(cause).split(".__init__")[0])
        if owner is not None and is_dataclass(owner):
            return _suggestion(wrong, [f.name for f in fields(owner)])
    return ""


def _keys(node: Any) -> list[str]:
    """The keys of a part of a config."""
    return [str(key) for key in node.keys()] if hasattr(node, "keys") else []  # noqa: SIM118


def _extra(cause: BaseException) -> str:
    """How to install the launcher that a config names, if it is missing."""
    found = re.search(r"Could not (?:load|find) 'hydra/launcher/(joblib|submitit|ray)", str(cause))
    return f"pip install 'torch-hypergrad[{_EXTRAS[found[1]]}]' installs that launcher." if found else ""


def _suggestion(wrong: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    start = f"Did you mean {near[0]!r}? " if near else ""
    return f"{start}The choices are: {', '.join(sorted(known))}."


def _class_named(name: str) -> type | None:
    import hypergrad

    return getattr(hypergrad, name, None)


def _users_frame(error: BaseException) -> str:
    """File, line and function of the innermost frame in the user's own code, if the error came from there."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(library in frame.filename for library in _LIBRARIES) and not frame.filename.startswith("<"):
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return ""
