"""`resume=<run folder>` on the command line, replaced by the arguments with which the run started."""

from pathlib import Path
from typing import Any

from hypergrad.callback.state_file import read
from hypergrad.cli.settings import options_and_others
from hypergrad.core.errors import CheckpointError
from hypergrad.table.recorded_files import yaml_content

AUTO = "auto"
"""`resume=auto` goes on in the folder of the run if it holds a state, and begins there otherwise."""
_OURS = ("resume=", "hydra.run.dir=", "hydra.output_subdir=")
"""Arguments that resuming sets itself."""
_NEVER = ("hydra.", "hydra/", "hydra=", "allow_targets")
"""The beginnings of arguments that decide what may run, which only the user's own command line may."""


def resumed(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments that continue a run: its own, then the other given arguments, in the folder of the run.

    Args:
        arguments: of the command line; without `resume=`, or with `resume=auto`, they are returned unchanged.

    Returns:
        Arguments for Hydra, which do not overwrite the config with which the run started, and the folder of the run;
        None if there is none.

    Also raised, by what it calls: FileNotFoundError if there is nothing to go on from; CheckpointError if the state
    cannot be read; ValueError if the folder holds arguments that a run does not leave there.
    """
    options, others = options_and_others(arguments)
    chosen = [argument.removeprefix("resume=") for argument in others if argument.startswith("resume=")]
    if not chosen or chosen[-1] in ("", "null", AUTO):
        return arguments, None
    source = Path(chosen[-1]).resolve()
    try:
        read(source)
    except (FileNotFoundError, CheckpointError) as error:
        raise type(error)(f"resume: {error}") from error
    folder = source if source.is_dir() else source.parent
    given = [argument for argument in others if not argument.startswith(_OURS)]
    overrides = continued(folder, given)
    given_config = any(text.startswith(("--config-dir", "-cd")) for text in options)
    where = [] if given_config else _config_dir(folder / ".hydra")
    return [*options, *where, *overrides, f"resume={_quoted(source)}"], folder


def continued(folder: Path, given: list[str]) -> list[str]:
    """The overrides with which the run in a folder started, those given now, and those that let Hydra use the folder.

    Args:
        folder: of the run; the config with which it started is not overwritten.
        given: which replace those of the run.

    Also raised, by what it calls: FileNotFoundError if it is not the folder of a run; ValueError if the folder holds
    arguments that a run does not leave there.
    """
    begun = folder / ".hydra"
    keys = {_key(argument) for argument in given}
    before = [text for text in _overrides(begun) if not text.startswith(_OURS) and _key(text) not in keys]
    return [*before, *given, f"hydra.run.dir={_quoted(folder)}", "hydra.output_subdir=.hydra/resumed"]


def _overrides(begun: Path) -> list[str]:
    """The overrides with which a run started.

    Raises:
        ValueError: if one of them is an option, or a setting of Hydra, which a run does not leave in this file.
    """
    overrides = _content(begun / "overrides.yaml", list)
    for text in overrides:
        if not isinstance(text, str) or text.strip().startswith("-") or _key(text.strip()).startswith(_NEVER):
            raise ValueError(
                f"{begun / 'overrides.yaml'} holds {text!r}, which no run of hypergrad leaves there; if you trust it, "
                "give it on the command line."
            )
    return overrides


def _key(argument: str) -> str:
    return argument.split("=", 1)[0].lstrip("+~")


def _quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _config_dir(begun: Path) -> list[str]:
    """The argument `--config-dir` with which the run started, if there was one.

    Raises:
        ValueError: if the settings of the run do not say.
    """
    path = begun / "hydra.yaml"
    try:
        sources = _content(path, dict)["hydra"]["runtime"]["config_sources"]
        given = [source["path"] for source in sources if source["provider"] == "command-line"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} has no hydra.runtime.config_sources, which every run leaves there.") from error
    if given and not Path(str(given[0])).is_dir():
        raise ValueError(f"{path} names the --config-dir {given[0]}, which is no folder; give --config-dir FOLDER.")
    return ["--config-dir", given[0]] if given else []


def _content(path: Path, kind: type) -> Any:
    """What a YAML file of a run holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not of that kind.
    """
    if not path.exists():
        raise FileNotFoundError(f"resume must name the folder of a run, but there is no {path}.")
    content = yaml_content(path)
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a {kind.__name__}, but it holds a {type(content).__name__}.")
    return content
