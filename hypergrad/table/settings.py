"""What differs between runs, and names for them from it."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypergrad.table.recorded_run import RecordedRun


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds at most.

    Attributes:
        name: what tells it from the others, such as "unrolled, lr 0.1".
        runs: one for each seed.
        values: of the keys that differ between the settings.
    """

    name: str
    runs: list[RecordedRun]
    values: dict[str, Any]


def settings_of(runs: Sequence[RecordedRun]) -> list[Setting]:
    """The settings of runs, in the order of their first runs.

    Runs whose command line is not recorded, or that have both the setting and the seeds of another, stand alone.
    """
    keys = differing_keys(runs)
    places = dict(zip([id(run) for run in runs], short_paths([run.folder for run in runs]), strict=True))
    groups: dict[Hashable, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(_text(_values(run, keys)) if run.config else id(run), []).append(run)
    found: list[Setting] = []
    for group in groups.values():
        values, first = _values(group[0], keys), group[0]
        name = _described(values, first) if first.config else ""
        if len({_text(seeds(run)) for run in group}) == len(group):
            by_place = places[id(first)] if len(group) == 1 else _experiment(first)
            found.append(Setting(name or by_place, group, values))
        else:
            alone = [", ".join(part for part in (name, places[id(run)]) if part) for run in group]
            found += [Setting(one, [run], values) for one, run in zip(alone, group, strict=True)]
    return found


def differing_keys(runs: Sequence[RecordedRun]) -> list[str]:
    """The keys of the command lines whose values differ between runs, without those of seeds."""
    known = [run for run in runs if run.config]
    keys = dict.fromkeys(key for run in known for key in run.overrides if not _is_seed(key))
    return [key for key in keys if len({_text(run.setting(key)) for run in known}) > 1]


def seeds(run: RecordedRun) -> dict[str, Any]:
    """The seeds of a run by their keys; that of the whole run is there in any case."""
    keys = dict.fromkeys(["seed", *(key for key in run.overrides if _is_seed(key))])
    return {key: run.setting(key) for key in keys}


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, such as "lr" for "solver.lr", or all of it where that would be ambiguous."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: short if counts[short] == 1 else key for key, short in last.items()}


def short_paths(paths: Sequence[Path]) -> list[str]:
    """The end of each path, as many parts as it takes to tell it from the others."""
    whole = [path.resolve().parts for path in paths]
    return [
        "/".join(parts[-next(n for n in range(1, len(parts) + 1) if _is_unique(parts, n, whole)) :]) for parts in whole
    ]


def _is_unique(parts: tuple[str, ...], n: int, whole: list[tuple[str, ...]]) -> bool:
    return n == len(parts) or sum(other[-n:] == parts[-n:] for other in whole) == 1


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _values(run: RecordedRun, keys: Sequence[str]) -> dict[str, Any]:
    return {key: run.setting(key) for key in keys}


def _described(values: dict[str, Any], run: RecordedRun) -> str:
    """Values in words: the choice of a config group by itself, any other value after its key."""
    words = []
    for key, short in short_keys(list(values)).items():
        value, key_words = values[key], short.replace("_", " ")
        if value is None:
            words.append(f"no {key_words}")
        elif isinstance(value, str) and (key in run.choices or "@" in key):
            words.append(value)
        else:
            words.append(f"{key_words} {_shown(value)}")
    return ", ".join(words)


def _experiment(run: RecordedRun) -> str:
    return str(run.config.get("name", run.folder.resolve().name))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    """Values as text that is equal for equal values, also for 1 and 1.0."""
    if isinstance(value, dict):
        return repr(sorted((key, _text(part)) for key, part in value.items()))
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
