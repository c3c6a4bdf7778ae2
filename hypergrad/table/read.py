"""Recorded runs, found in folders and read."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypergrad.table.recorded_files import labels, rows, summary, yaml_content
from hypergrad.table.recorded_run import RecordedRun

# yaml is imported where it is used, because hypergrad imports this file.
_METRICS, _SUMMARY, _HYDRA = "metrics.jsonl", "summary.json", ".hydra"
_OF_THE_PLACE = ("resume", "hydra", "callback")
"""Keys of the command line that say where a run is and how it is shown, and not what is run."""


def found_runs(folders: Sequence[str | Path]) -> list[RecordedRun]:
    """The runs in these folders, and in the folders below them, in natural order.

    Raises:
        FileNotFoundError: if a folder does not exist, or holds no run.

    Also raised, by what it calls: ValueError if a file of a run cannot be read.
    """
    found: dict[Path, RecordedRun] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is not a folder; name the folder of a run or of a sweep, in quotes if it holds spaces."
            )
        inside = [path for path in _below(folder) if _is_run(path)]
        if not inside:
            raise FileNotFoundError(
                f"{folder} holds no run: no {_METRICS} and no {_SUMMARY}, nor does a folder below it; name another."
            )
        found |= {path.resolve(): read_run(path) for path in inside}
    return list(found.values())


def read_run(folder: Path) -> RecordedRun:
    """The run in a folder.

    Also raised, by what it calls: ValueError if a file cannot be read.
    """
    hydra = folder / _HYDRA / "resumed"
    if not (hydra / "overrides.yaml").exists():
        hydra = folder / _HYDRA
    return RecordedRun(
        folder=folder,
        rows=rows(folder / _METRICS),
        summary=summary(folder / _SUMMARY),
        overrides=_overrides(yaml_content(hydra / "overrides.yaml") or []),
        choices=_choices(yaml_content(hydra / "hydra.yaml")),
        config=yaml_content(hydra / "config.yaml") or {},
        labels=labels(folder / "labels.json"),
    )


def _is_run(folder: Path) -> bool:
    # A run of a sweep that failed before its first step has its config only.
    begun = (folder / _HYDRA).is_dir() and (folder.parent / "multirun.yaml").exists()
    return begun or any((folder / name).exists() for name in (_METRICS, _SUMMARY))


def _below(folder: Path) -> list[Path]:
    """A folder and those below it, in natural order, without the hidden ones."""
    paths = [path for path in folder.rglob("*") if path.is_dir()]
    shown = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted([folder, *shown], key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A sort key by which 2 comes before 10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _overrides(arguments: Any) -> dict[str, Any]:
    """Arguments such as "+solver.lr=0.1" by key; another YAML than a list of them has none."""
    pairs = [text.partition("=") for text in arguments if isinstance(text, str)] if isinstance(arguments, list) else []
    named = {key.lstrip("+~"): _value(value) for key, _, value in pairs}
    return {key: value for key, value in named.items() if key.partition(".")[0].partition("/")[0] not in _OF_THE_PLACE}


def _choices(settings: Any) -> dict[str, Any]:
    choices = settings
    for key in ("hydra", "runtime", "choices"):
        choices = choices.get(key) if isinstance(choices, dict) else None
    return choices if isinstance(choices, dict) else {}


def _value(text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
        return float(value) if isinstance(value, str) else value  # to YAML 1.1, 1e-3 is text
    except (yaml.YAMLError, ValueError):
        return text
