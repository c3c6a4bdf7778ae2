"""Curves of settings: the mean over seeds, with its standard error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hypergrad.table.recorded_run import FINISHED, RecordedRun
from hypergrad.table.settings import Setting

Series = Callable[[RecordedRun], np.ndarray]
"""A number for each row of a run, shape (rows,)."""


@dataclass(frozen=True)
class Curve:
    """A curve, shape (rows,) each.

    Attributes:
        index: of the setting, for its colour.
        x: such as outer steps.
        y: the values of one run, or the mean over several.
        low: one standard error below the mean; None for one run.
        high: one standard error above it.
        breaks_off: whether it is that of a run which did not finish.
        is_search: whether the rows are trials.
    """

    index: int
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    breaks_off: bool = False
    is_search: bool = False


def label(setting: Setting) -> str:
    """The name of a setting with the number of its seeds, and of those that did not finish."""
    whole, broken = parted(setting)
    if len(setting.runs) == 1:
        return setting.name if whole else f"{setting.name} ({broken[0].status})"
    remarks = [f"{len(whole)} seeds"] if whole else []
    states = dict.fromkeys(run.status for run in broken)
    remarks += [f"{sum(run.status == state for run in broken)} {state}" for state in states]
    return f"{setting.name} ({', '.join(remarks)})"


def says_what_bands_are(settings: Sequence[Setting]) -> str | None:
    """The title of a legend where a curve is a mean; None where none is."""
    has_means = any(len(parted(setting)[0]) > 1 for setting in settings)
    return "mean ± standard error over seeds" if has_means else None


def parted(setting: Setting) -> tuple[list[RecordedRun], list[RecordedRun]]:
    """The runs that finished, and those that did not."""
    whole = [run for run in setting.runs if run.status == FINISHED]
    return whole, [run for run in setting.runs if run.status != FINISHED]


def curves(settings: Sequence[Setting], x: Series, y: Series, *, logarithmic: bool = False) -> list[Curve]:
    """The curves of settings: one for the runs that finished, and one for each of the others.

    Several runs are shown by the means of x and of y at each row that all of them have.

    Args:
        settings: what to draw.
        x: of each row.
        y: of each row; a run without a finite value has no curve.
        logarithmic: take the mean and standard error of log y, for a logarithmic axis.
    """
    found: list[Curve] = []
    for index, setting in enumerate(settings):
        whole, broken = ([run for run in part if np.isfinite(x(run) + y(run)).any()] for part in parted(setting))
        shown = [_mean(index, [x(run) for run in whole], [y(run) for run in whole], logarithmic)] if whole else []
        shown += [Curve(index, x(run), y(run), breaks_off=True) for run in broken]
        found += [replace(curve, is_search=setting.runs[0].is_search) for curve in shown]
    return [_without_gaps(curve) for curve in found if np.isfinite(curve.x + curve.y).any()]


def _without_gaps(curve: Curve) -> Curve:
    """The curve through the rows that have a value, as where all of dev is evaluated in some outer steps only."""
    known = ~np.isnan(curve.y)
    x, y, low, high = (v if v is None else v[known] for v in (curve.x, curve.y, curve.low, curve.high))
    return replace(curve, x=x, y=y, low=low, high=high)


def _mean(index: int, xs: list[np.ndarray], ys: list[np.ndarray], logarithmic: bool) -> Curve:
    if len(ys) == 1:
        return Curve(index, xs[0], ys[0])
    rows = min(map(len, ys))
    x, y = (np.stack([values[:rows] for values in part]) for part in (xs, ys))
    values = np.log(y) if logarithmic else y
    mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(ys))
    ends = (mean, mean - error, mean + error)
    return Curve(index, x.mean(0), *(np.exp(end) if logarithmic else end for end in ends))
