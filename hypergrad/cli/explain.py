"""Errors in a few lines: the message, where the error happened, and what the user may have meant."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf.errors import InterpolationResolutionError

from hypergrad.cli.suggestion import choices, nearest, suggestion
from hypergrad.core.errors import HypergradError, RankError, message

_FOOTER = "HYDRA_FULL_ERROR=1 shows the traceback."
_LIBRARIES = ("site-packages", "dist-packages", "/lib/python", str(Path(__file__).parents[1]))
"""Parts of paths that are not the user's own code."""


def explain(error: BaseException, settings: Sequence[str] = ()) -> str:
    """A message for the user at the command line, without a traceback.

    If a config key or an argument is misspelt, it begins with the name that is meant, and ends with the choices. If the
    error comes from the user's own code, it names the line.

    Args:
        error: what ended the command.
        settings: of the command, which are choices beside the keys of the config.
    """
    if isinstance(error, KeyboardInterrupt):
        return f"stopped: {str(error) or 'interrupted'}"
    causes = _chain(error)
    hints = (suggestion(cause, settings) for cause in causes)
    meant, others = next((hint for hint in hints if any(hint)), ("", ""))
    lines = [" ".join(filter(None, ("error:", meant, _first_line(error, causes)))), *filter(None, (others,))]
    if isinstance(error, InterpolationResolutionError):
        lines += [f"The command line has {text}; give a value that exists." for text in sys.argv[1:] if "${" in text]
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
    said = message(says_most).strip()
    if not said or isinstance(says_most, KeyError | AttributeError | ImportError) and not _is_about_config(error):
        said = f"{type(root).__name__}: {said}"
    if isinstance(says_most, ModuleNotFoundError) and (missing := _attribute(says_most)):
        said = missing
    elif isinstance(says_most, ModuleNotFoundError):
        said += ". `python -m` looks in the current folder: run it in the folder that holds the module."
    key = _config_key(causes)
    return f"{key}: {said}" if key else said


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
    return " ".join(filter(None, (f"The module {module} has no {name!r}.", nearest(name, known), choices(known))))


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


def _users_frame(error: BaseException) -> str:
    """File, line and function of the innermost frame in the user's own code, if the error came from there."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(library in frame.filename for library in _LIBRARIES) and not frame.filename.startswith("<"):
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return ""
