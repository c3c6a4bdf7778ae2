"""The keys of the primary config that no object checks."""

import math
from typing import Any

from hypergrad.cli.given import given

_SCALAR = (str, int, float)
_SETTINGS: dict[str, tuple[tuple[type, ...], str]] = {
    "name": (_SCALAR, "text"),
    "resume": ((str, type(None)), "the folder of a run, or auto, or null"),
    "seed": ((int,), "an integer"),
    "folds": ((int, type(None)), "an integer or null"),
    "any_world": ((bool,), "true or false"),
    "rank_timeout": ((int, float), "a number"),
}
_WIDEST = 2**63
"""Of a seed that torch takes."""


def require_settings(config: dict[str, Any]) -> None:
    """Require that the settings of a run have their types and ranges.

    Args:
        config: the composed config as nested dicts.

    Raises:
        TypeError: if one has another type.
        ValueError: if one is out of range, or is missing.
    """
    for key, (kinds, expected) in _SETTINGS.items():
        if key not in config:
            raise ValueError(f"The config has no {key}, which every run needs; leave ~{key} out.")
        value = config[key]
        if isinstance(value, str) and value.startswith("${"):
            continue  # whoever reads it says that it has no value
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{key} must be {expected}, but it is {value!r} of type {type(value).__name__}.")
    if isinstance(config["seed"], int) and abs(config["seed"]) >= _WIDEST:
        raise ValueError(f"seed must be an integer of at most 63 bits, but it is {config['seed']}.")
    timeout = config["rank_timeout"]
    if not isinstance(timeout, str) and not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"rank_timeout must be a finite number of seconds above 0, but it is {timeout}.")


def require_problem(problem: Any) -> None:
    """Require that a config says what its problem is.

    Args:
        problem: its part of the config, as plain values.

    Raises:
        ValueError: if there is none.
        TypeError: if it is no mapping.
    """
    if problem is None:
        chosen = f" by {' '.join(given('experiment'))}" * bool(given("experiment"))
        raise ValueError(
            f"No problem is configured{chosen}: choose experiment=ridge, or your own experiment with --config-dir. Its "
            "file begins with `# @package _global_` and has a key `problem`."
        )
    if not isinstance(problem, dict):
        raise TypeError(f"problem must be a mapping with a key _target_, as hypergrad.Ridge, but it is {problem!r}.")
