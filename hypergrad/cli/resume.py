"""`resume=<run folder>` on the command line, replaced by the arguments with which the run started."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from hypergrad.callback.state_file import read
from hypergrad.cli.allowed import is_users

_OURS = ("resume=", "hydra.run.dir=", "hydra.output_subdir=")
"""Arguments that resuming sets itself."""
_NOT_OF_A_RUN = ("hydra", "allow_targets")
"""Keys whose values are not read from the folder of a run, which may come from anywhere: Hydra's own settings can name
code to call before the config is checked, and what is trusted is said on the command line."""


def resumed(arguments: list[str]) -> list[str]:
    """The arguments that continue a run: its own, then the other given arguments, in the folder of the run.

    Args:
        arguments: of the command line; without `resume=`, they are returned unchanged.

    Returns:
        Arguments for Hydra, which do not overwrite the config with which the run started.

    Raises:
        FileNotFoundError: if there is nothing to go on from.

    Also raised, by what it calls: CheckpointError if the state cannot be read; ValueError if the run was started with
    configs of a folder that is not below the current one, or a YAML file of it cannot be read.
    """
    chosen = [argument.removeprefix("resume=") for argument in arguments if argument.startswith("resume=")]
    if not chosen or chosen[-1] in ("", "null"):
        return arguments
    source = Path(chosen[-1]).resolve()
    read(source)
    folder = source if source.is_dir() else source.parent
    begun = folder / ".hydra"
    if not (begun / "overrides.yaml").exists():
        raise FileNotFoundError(f"resume must name the folder of a run, but there is no {begun / 'overrides.yaml'}.")
    given = [argument for argument in arguments if not argument.startswith(_OURS)]
    keys = {_key(argument) for argument in given}
    overrides: list[str] = _read_yaml(begun / "overrides.yaml")
    before = [text for text in overrides if _key(text) not in keys and not _key(text).startswith(_NOT_OF_A_RUN)]
    before = [text for text in before if not text.startswith(("resume=", "-"))]
    where = [] if any(text.startswith(("--config-dir", "-cd")) for text in given) else _config_dir(begun)
    ours = [f"resume={_quoted(source)}", f"hydra.run.dir={_quoted(folder)}", "hydra.output_subdir=.hydra/resumed"]
    return [*where, *before, *given, *ours]


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML of a run: {' '.join(str(error).split())}") from error


def _key(argument: str) -> str:
    return argument.split("=", 1)[0].lstrip("+~")


def _quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _config_dir(begun: Path) -> list[str]:
    """The argument `--config-dir` with which the run started, if there was one.

    Raises:
        ValueError: if that folder may be a stranger's: configs can set up Hydra itself, and so call anything.
    """
    settings = _read_yaml(begun / "hydra.yaml")
    for source in settings["hydra"]["runtime"]["config_sources"]:
        if source["provider"] == "command-line":
            path = Path(source["path"])
            if not is_users(path):
                raise ValueError(
                    f"The run was started with configs of {path}, which is not below the current folder, or belongs to "
                    f"a run. If you trust them, say so: add --config-dir {shlex.quote(str(path))}."
                )
            return ["--config-dir", str(path)]
    return []
