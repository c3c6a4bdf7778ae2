"""Runs as rows of a table."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypergrad.table.recorded_run import FINISHED, RecordedRun
from hypergrad.table.settings import Setting, seeds, settings_of, short_keys

Row = dict[str, Any]
"""Values by column."""

_COSTS = {
    "gradients": "run/gradients",
    "products": "run/products",
    "inner_steps": "run/inner_steps",
    "seconds": "run/seconds",
}
_CONVERGED = ("inner/converged", "adjoint/converged")


def rows_of_runs(runs: Sequence[RecordedRun], folders: Sequence[Path]) -> list[Row]:
    """One row for each run: where it is, what differs, its losses, λ at its best step, its cost, and its error.

    Args:
        runs: what to show, whatever became of them.
        folders: in which they were found; `run` is the path from there.
    """
    settings = settings_of(runs)
    values = {id(run): setting.values for setting in settings for run in setting.runs}
    return [
        {"run": _place(run.folder, folders), **_shortened(values[id(run)]), **_seeds(run, runs), **numbers(run)}
        for run in runs
    ]


def rows_over_seeds(runs: Sequence[RecordedRun]) -> list[Row]:
    """One row for each setting: the mean of each number over its finished runs, and its standard error as NAME_se."""
    return [_over_seeds(setting) for setting in settings_of(runs)]


def numbers(run: RecordedRun) -> Row:
    """The status of a run, its losses and metrics at the first, best and last step, λ at the best, and its cost."""
    first, best, last = _ends(run)
    row: Row = {"status": run.status, "steps": last.get("step", run.rows[-1]["step"] if run.rows else None)}
    row["best_step"] = best.get("step")
    for tag in _measures(last):
        name = tag.removeprefix("loss/").removeprefix("metric/")
        row |= {f"{name}_{when}": at.get(tag) for when, at in (("first", first), ("best", best), ("last", last))}
    row |= {name: last.get(tag) for name, tag in _COSTS.items()}
    answers = [last[tag] for tag in _CONVERGED if tag in last]
    row["converged"] = all(answers) if answers else None
    hparams = {tag: x for tag, x in best.items() if tag.startswith("hparam/") and not isinstance(x, list)}
    return row | hparams | {"error": run.summary.get("error")}


def columns(rows: Sequence[Row]) -> list[str]:
    """The columns that any of the rows has, in order."""
    return list(dict.fromkeys(name for row in rows for name in row))


def standard_error(values: Sequence[float]) -> float:
    """s/√n with the sample standard deviation s; NaN for fewer than two values."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _over_seeds(setting: Setting) -> Row:
    finished = [run for run in setting.runs if run.status == FINISHED]
    row: Row = {"setting": setting.name, **_shortened(setting.values)}
    row |= {"runs": len(setting.runs), "finished": len(finished)}
    rows = [numbers(run) for run in finished]
    for name in columns(rows):
        values = [one.get(name) for one in rows]
        if all(_is_number(value) for value in values):
            known = [float(value) for value in values if value is not None]
            row |= {name: float(np.mean(known)), f"{name}_se": standard_error(known)}
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ends(run: RecordedRun) -> tuple[Row, Row, Row]:
    """The first, best and last record; a run that did not finish is judged by its dev loss."""
    if all(run.summary.get(when) for when in ("first", "best", "last")):
        first, best, last = (run.summary[when] for when in ("first", "best", "last"))
        return first, best, last
    if not run.rows:
        return {}, {}, run.summary.get("last") or {}
    known = [row for row in run.rows if row.get("loss/dev") is not None]
    return run.rows[0], min(known, key=lambda row: row["loss/dev"], default={}), run.rows[-1]


def _measures(row: Row) -> list[str]:
    """The losses and metrics, the dev loss first."""
    tags = [tag for tag in row if tag.startswith("metric/")]
    return [tag for tag in ("loss/dev", "loss/test", "loss/inner") if tag in row] + tags


def _shortened(values: dict[str, Any]) -> Row:
    return {short: values[key] for key, short in short_keys(list(values)).items()}


def _seeds(run: RecordedRun, runs: Sequence[RecordedRun]) -> Row:
    """The seeds of a run, if they differ between the runs."""
    every = [seeds(one) for one in runs]
    keys = list(dict.fromkeys(key for one in every for key in one))
    return {key: run.setting(key) for key in keys if len({repr(one.get(key)) for one in every}) > 1}


def _place(folder: Path, folders: Sequence[Path]) -> str:
    """The path of a run from the folder in which it was found, or its name if it is that folder."""
    inside = [root for root in folders if folder.is_relative_to(root)]
    if not inside or folder == inside[0]:
        return folder.resolve().name
    place = str(folder.relative_to(inside[0]))
    return place if len(folders) == 1 else f"{inside[0].resolve().name}/{place}"
