"""What the user may have meant, after an error: the nearest name, the choices, or an argument to leave out."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

_EXTRAS = {"joblib": "joblib", "submitit": "slurm", "ray": "ray"}
"""The extra of this package that installs each launcher."""
_REMEDIES = {
    "looks like a config group override": "To set a value, leave out @ and what follows it.",
    "Additional config directory": "--config-dir must name a folder that exists.",
    "rimary config": "The primary config comes with hypergrad; add your own configs with --config-dir FOLDER.",
    "Error merging override": "Leave this argument out, or give the key another value.",
    "Could not delete from config": "Leave this argument out.",
}
"""What to do where Hydra says only what is wrong."""
_EXCHANGED = ("linsolve", "product", "single_loop", "solver")
"""Config groups, which are packages too, whose keys experiments set."""


def suggestion(error: BaseException, settings: Sequence[str] = ()) -> tuple[str, str]:
    """The name that was meant, as a question, and what else there is to choose or to do; "" for none.

    Args:
        error: of Hydra, for a misspelt name, or of Python, for an unknown keyword argument.
        settings: of the command, which are choices beside the keys of the config.
    """
    parent = getattr(error, "parent_node", None)
    if type(error).__name__.startswith("Interpolation"):
        return "", ""
    if parent is not None and hasattr(parent, "keys"):
        return _of_config(str(getattr(error, "key", "")), parent, settings)
    for said, remedy in _REMEDIES.items():
        if said in str(error):
            return "", remedy
    options, wrong = getattr(error, "options", None), str(getattr(error, "missing_cfg_file", "")).rpartition("/")[2]
    if options and (meant := nearest(wrong, options)):
        return meant, ""
    marker = "got an unexpected keyword argument "
    if isinstance(error, TypeError) and marker in str(error):
        owner = _class_named(str(error).split(".__init__")[0])
        if owner is not None and is_dataclass(owner):
            wrong, known = str(error).split(marker)[1].split("'")[1], [f.name for f in fields(owner)]
            return nearest(wrong, known), choices(known) + _set_by_experiment(owner, wrong)
    return "", _extra(error)


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The known name that is most like a wrong one, as a question; "" if none is."""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


def choices(known: Iterable[str]) -> str:
    """All names in a sentence."""
    return f"The choices are: {', '.join(sorted({*known}))}."


def _of_config(wrong: str, parent: Any, settings: Sequence[str]) -> tuple[str, str]:
    """The suggestion for a key that a part of a config does not have."""
    known = [str(key) for key in parent.keys() if key != "hydra"]  # noqa: SIM118
    if "outer_steps" in known:
        known += ["experiment", *settings]  # at the top level, without a key in the config
    inside = [f"{name}.{wrong}" for name in known if wrong in _keys(parent._get_node(name, validate_access=False))]
    if inside:
        return f"Did you mean {' or '.join(inside)}?", ""
    return (nearest(wrong, known), choices(known)) if known else ("", "")


def _set_by_experiment(owner: type, wrong: str) -> str:
    """How to leave out a key that an experiment sets for another class of its group; "" where none does."""
    group = owner.__module__.split(".")[1]
    return f" If an experiment sets {wrong}, ~{group}.{wrong} leaves it out." if group in _EXCHANGED else ""


def _keys(node: Any) -> list[str]:
    """The keys of a part of a config."""
    return [str(key) for key in node.keys()] if hasattr(node, "keys") else []  # noqa: SIM118


def _extra(error: BaseException) -> str:
    """How to install the launcher that a config names, if it is missing."""
    found = re.search(r"Could not (?:load|find) 'hydra/launcher/(joblib|submitit|ray)", str(error))
    return f"pip install 'torch-hypergrad[{_EXTRAS[found[1]]}]' installs that launcher." if found else ""


def _class_named(name: str) -> type | None:
    import hypergrad

    return getattr(hypergrad, name, None)
