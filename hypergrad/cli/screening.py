"""A composed config, searched for everything that would be called, before it is built."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from hypergrad.cli.permission import Permission

_LOOKUPS = tuple(f"hydra.utils.get_{kind}" for kind in ("class", "method", "object", "static_method"))
_PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
_LOGGING = {
    *("logging.FileHandler", "logging.Formatter", "logging.NullHandler", "logging.StreamHandler"),
    *("logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler"),
    *("colorlog.ColoredFormatter", "ext://sys.stdout", "ext://sys.stderr"),
}
"""What Python's logging may build for Hydra."""


def plain(node: Any) -> Any:
    """A config as nested dicts and lists; an interpolation that has no value yet, or a missing value, is text."""
    if not OmegaConf.is_config(node):
        return node
    items = {key: _value(node, key) for key in (node if isinstance(node, DictConfig) else range(len(node)))}
    return (
        {key: plain(x) for key, x in items.items()} if isinstance(node, DictConfig) else [*map(plain, items.values())]
    )


def _value(node: Any, key: Any) -> Any:
    try:
        return node[key]
    except OmegaConfBaseException:
        return str(node._get_node(key)._value())


def unresolved(node: Any) -> str:
    """The first key of a config whose interpolation has no value, such as "solver.lr"; "" if there is none."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        part: Any = node._get_node(key, validate_access=False)
        if part._is_interpolation():
            try:
                node[key]
            except InterpolationResolutionError:
                return part._get_full_key(None)
            except OmegaConfBaseException:
                continue
        elif (
            OmegaConf.is_config(part) and not part._is_none() and not part._is_missing() and (found := unresolved(part))
        ):
            return found
    return ""


def screen(config: Any, permission: Permission, *keys: str) -> None:
    """Require that a config names only what it may.

    Args:
        config: nested dicts and lists of plain values; interpolations that cannot be resolved yet are text.
        permission: what it may name.
        keys: that lead to it.

    Also raised, by what it calls: ValueError if it names something else.
    """
    if isinstance(config, list):
        for index, part in enumerate(config):
            screen(part, permission, *keys, str(index))
    if not isinstance(config, dict):
        return
    if config.get("_target_") is not None:
        _screen_target(config, permission, keys)
    for key, part in config.items():
        here = (*keys, str(key))
        if here in (("hydra", "job_logging"), ("hydra", "hydra_logging")):
            _screen_logging(part, *here)
        else:
            screen(part, permission, *here)
            if here in (("hydra", "callbacks"), ("hydra", "launcher"), ("hydra", "sweeper")):
                _require_resolved(part, *here)
            if key == "custom_search_space" and part is not None:  # a function, for the Optuna sweeper
                permission.require(str(part), ".".join(here))


def screen_resumed(hydra: dict[str, Any]) -> None:
    """Require that the settings of Hydra, in a run that is resumed, start one run in this process as it is.

    Raises:
        ValueError: if they do more.
    """
    if str(hydra.get("mode")).endswith("MULTIRUN"):
        raise ValueError("hydra.mode: a run is resumed alone, without -m.")
    if hydra["job"].get("env_set"):
        raise ValueError(
            "hydra.job.env_set: a run that is resumed may not set environment variables; set them in the shell."
        )


def _screen_target(config: dict[str, Any], permission: Permission, keys: tuple[str, ...]) -> None:
    target, key = str(config["_target_"]), ".".join((*keys, "_target_"))
    if target.startswith(_PLUGINS) and keys in (("hydra", "launcher"), ("hydra", "sweeper")):
        return
    if target not in _LOOKUPS:
        permission.require(target, key)
        return
    if not isinstance(config.get("path"), str) or config.keys() - {"_target_", "path", "_convert_", "_recursive_"}:
        raise ValueError(f"{key}: {target} needs a `path`, and nothing else, so that it can be checked.")
    permission.require(config["path"], ".".join((*keys, "path")))


def _screen_logging(part: Any, *keys: str) -> None:
    """Require that Python's logging builds its own handlers and formatters only.

    Raises:
        ValueError: if it would build something else.
    """
    if isinstance(part, list):
        for index, each in enumerate(part):
            _screen_logging(each, *keys, str(index))
    elif isinstance(part, dict):
        for key, each in part.items():
            is_named = key in ("class", "()") or (isinstance(each, str) and each.startswith(("ext://", "cfg://")))
            if is_named and each not in _LOGGING or key == ".":
                raise ValueError(f"{'.'.join((*keys, str(key)))}: the log may not be made by {each}.")
            _screen_logging(each, *keys, str(key))
    elif isinstance(part, str) and part.startswith(("ext://", "cfg://")) and part not in _LOGGING:
        raise ValueError(f"{'.'.join(keys)}: the log may not be made by {part}.")


def _require_resolved(part: Any, *keys: str) -> None:
    """Require that a part of Hydra's own config is known now: Hydra builds it before the run begins.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(part, dict | list):
        for key, each in part.items() if isinstance(part, dict) else enumerate(part):
            _require_resolved(each, *keys, str(key))
    elif isinstance(part, str) and "${" in part:
        raise ValueError(f"{'.'.join(keys)}: {part} has no value yet, so that it cannot be checked; write the value.")
