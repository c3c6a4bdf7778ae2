"""The settings of the command `python -m hypergrad.influence`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hypergrad.cli.resume import continued
from hypergrad.cli.settings import own_settings
from hypergrad.influence.tables import require_format
from hypergrad.table.recorded_files import mapping

_FILE = "influence.json"
_DEFAULTS = {"method": "", "top": "10", "steps": "10000", "each": "false", "groups": "", "table": "csv"}


@dataclass(frozen=True)
class InfluenceArguments:
    """What the command is asked for, apart from the config.

    Attributes:
        method: the name of a config of the group `influence`; "" for one solve at the optimum.
        top: examples to print, ≥ 1.
        steps: of training, ≥ 1.
        each: whether to score for each dev example, and not only for their mean.
        groups: of train examples, see `read_groups`; "" for none.
        table: the format of the files.
    """

    method: str
    top: int
    steps: int
    each: bool
    groups: str
    table: str

    @classmethod
    def of(cls, arguments: list[str]) -> "tuple[InfluenceArguments, list[str]]":
        """The settings, and the other arguments, which are for Hydra.

        With `resume=<folder>`, both are those with which the run in the folder started, but for those given now.

        Raises:
            ValueError: if a setting has a value that it cannot have.

        Also raised, by what it calls: FileNotFoundError if there is no run to resume; ImportError if the format of the
        files needs a package that is missing.
        """
        (where, arguments), folder = own_settings(arguments, {"resume": ""}), None
        stored = _DEFAULTS
        if where["resume"]:
            folder = Path(where["resume"]).resolve()
            stored = _stored(folder)
        settings, rest = own_settings(arguments, stored)
        found = cls(
            settings["method"],
            _positive("top", settings["top"]),
            _positive("steps", settings["steps"]),
            _bool("each", settings["each"]),
            settings["groups"],
            settings["table"],
        )
        require_format(found.table)
        if found.each and not found.method:
            raise ValueError("each=true needs a method, such as method=ekfac, method=cg or method=dense.")
        if folder is not None:
            if found.method != stored["method"]:
                raise ValueError(
                    f"The run in {folder} scored by method={stored['method']}, but method={found.method} is given; "
                    "begin a new run without resume=…."
                )
            return found, continued(folder, rest)
        name = "outputs/${name}-influence/${now:%Y-%m-%d_%H-%M-%S-%f}"
        chosen = f"+influence={found.method}" if found.method else "+sensitivity=jackknife"
        return found, [f"hydra.run.dir='{name}'", chosen, *rest]

    def save(self, folder: Path) -> None:
        """Write the settings, so that the run can be resumed."""
        settings = {name: str(value).lower() if name == "each" else str(value) for name, value in asdict(self).items()}
        (folder / _FILE).write_text(json.dumps(settings, indent=2) + "\n")


def _stored(folder: Path) -> dict[str, str]:
    """The settings with which a run started.

    Raises:
        FileNotFoundError: if there is none in the folder.
        ValueError: if they are none, or those of a run without a method.
    """
    path = folder / _FILE
    if not path.exists():
        raise FileNotFoundError(f"resume must name the folder of a run of hypergrad.influence, but there is no {path}.")
    found = mapping(path)
    if found.keys() != _DEFAULTS.keys():
        raise ValueError(f"{path} must hold the settings {', '.join(_DEFAULTS)}, which every run leaves there.")
    if not found["method"]:
        raise ValueError(f"The run in {folder} has no method, and is not resumed; start it again.")
    return {key: str(value) for key, value in found.items()}


def _positive(name: str, value: str) -> int:
    """The integer that a setting holds.

    Raises:
        ValueError: if it is not a positive integer.
    """
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name} must be an integer of at least 1, but it is {value!r}.")
    return int(value)


def _bool(name: str, value: str) -> bool:
    """Whether a setting is true.

    Raises:
        ValueError: if it is neither true nor false.
    """
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{name} must be true or false, but it is {value!r}.")
    return value.lower() == "true"
