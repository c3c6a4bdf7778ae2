"""`resume=<run folder>` on the command line, replaced by the arguments with which the run started."""

from pathlib import Path
from typing import Any

import yaml

from hypergrad.callback.state_file import read

_OURS = ("resume=", "hydra.run.dir=", "hydra.output_subdir=")
"""Arguments that resuming sets itself."""


def resumed(arguments: list[str]) -> list[str]:
    """The arguments that continue a run: its own, then the other given arguments, in the folder of the run.

    Args:
        arguments: of the command line; without `resume=`, they are returned unchanged.

    Returns:
        Arguments for Hydra, which do not overwrite the config with which the run started.

    Raises:
        FileNotFoundError: if there is nothing to go on from.

    Also raised, by what it calls: CheckpointError if the state cannot be read.
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
    overrides: list[str] = yaml.safe_load((begun / "overrides.yaml").read_text())
    before = [text for text in overrides if not text.startswith(_OURS) and _key(text) not in keys]
    where = [] if any(text.startswith(("--config-dir", "-cd")) for text in given) else _config_dir(begun)
    ours = [f"resume={_quoted(source)}", f"hydra.run.dir={_quoted(folder)}", "hydra.output_subdir=.hydra/resumed"]
    return [*where, *before, *given, *ours]


def _key(argument: str) -> str:
    return argument.split("=", 1)[0].lstrip("+~")


def _quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _config_dir(begun: Path) -> list[str]:
    """The argument `--config-dir` with which the run started, if there was one."""
    settings: Any = yaml.safe_load((begun / "hydra.yaml").read_text())
    for source in settings["hydra"]["runtime"]["config_sources"]:
        if source["provider"] == "command-line":
            return ["--config-dir", source["path"]]
    return []
