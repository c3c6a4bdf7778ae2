"""How hyperparameters move: a curve for each value, or a heat map of many."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from hypergrad.plot.curve import curves, label, parted, says_what_bands_are
from hypergrad.plot.panel import draw, handles, label_axes, legend, log_where_positive, panels, spreads
from hypergrad.table.recorded_run import RecordedRun
from hypergrad.table.settings import Setting

_MOST_CURVES = 10
"""A vector of more entries is a heat map. A judgement: more curves in one panel cannot be told apart."""
_MOST_TICKS = 24
"""Labels beside a heat map. A judgement: more would overlap."""
_RATIO = 2.0
"""Positive hyperparameters that differ by more than this have a logarithmic axis."""


@dataclass(frozen=True)
class _Part:
    """Entries of a hyperparameter that one panel shows.

    Attributes:
        name: for the axis: that of the hyperparameter, with the group of a schedule.
        of: the name of the hyperparameter.
        size: the number of all of its entries.
        entries: the positions of those that are shown.
        labels: their names.
    """

    name: str
    of: str
    size: int
    entries: list[int]
    labels: list[str]

    def values(self, run: RecordedRun) -> np.ndarray:
        """The entries, shape (rows, entries); NaN if the hyperparameter of a run is missing, or of another size."""
        if not self.fits(run):
            return np.full((len(run.rows), len(self.entries)), np.nan)
        return run.hyperparameters[self.of][:, self.entries]

    def fits(self, run: RecordedRun) -> bool:
        """Whether a run has the entries."""
        known = run.hyperparameters.get(self.of)
        return known is not None and known.shape[1] == self.size


def trajectories(settings: list[Setting]) -> Figure:
    """Each hyperparameter over the outer steps; for a search, the points of its trials.

    A single value has one panel for all settings. A vector has one for each setting: a curve for each entry by its
    name, or, for more than ten, a heat map.
    """
    runs = [run for setting in settings for run in setting.runs]
    parts = list(_parts(runs))
    scalars = [part for part in parts if len(part.entries) == 1]
    vectors = [(part, s) for part in parts if len(part.entries) > 1 for s in settings if any(map(part.fits, s.runs))]
    figure, axes = panels(max(1, len(scalars) + len(vectors)))
    for axis, part in zip(axes, scalars, strict=False):
        _scalar(axis, part, settings)
    if not parts:
        axes[0].text(0.5, 0.5, "no hyperparameters recorded", ha="center")
    for axis, (part, setting) in zip(axes[len(scalars) :], vectors, strict=False):
        if len(part.entries) > _MOST_CURVES:
            _heat_map(axis, part, setting)
        else:
            _entries(axis, part, setting)
        if len(settings) > 1:
            axis.set_title(label(setting), fontsize="medium")
    if len(settings) > 1 and scalars:
        legend(figure, [label(setting) for setting in settings], says_what_bands_are(settings))
    return figure


def _parts(runs: Sequence[RecordedRun]) -> Iterator[_Part]:
    """What the panels show of every hyperparameter; a schedule for several groups has a part for each group."""
    sizes = dict.fromkeys((name, x.shape[1]) for run in runs for name, x in run.hyperparameters.items() if x.size)
    for name, size in sizes:
        first = next(run for run in runs if name in run.hyperparameters and run.hyperparameters[name].shape[1] == size)
        labels = first.labels.get(name, [])
        if len(labels) != size:
            labels = [str(i) for i in range(size)]
        scheduled = [re.fullmatch(r"(step \d+), (.*)", one) for one in labels]
        groups = list(dict.fromkeys(match[2] for match in scheduled if match))
        if not groups:
            yield _Part(name, name, size, list(range(size)), labels)
        for group in groups:
            chosen = {i: match[1] for i, match in enumerate(scheduled) if match and match[2] == group}
            yield _Part(f"{name} of {group}", name, size, list(chosen), list(chosen.values()))


def _steps(run: RecordedRun) -> np.ndarray:
    return run.series("step")


def _scalar(axis: Axes, part: _Part, settings: list[Setting]) -> None:
    runs = [run for setting in settings for run in setting.runs]
    is_log = log_where_positive(axis, [part.values(run) for run in runs], _RATIO)
    found = curves(settings, _steps, lambda run: part.values(run)[:, 0], logarithmic=is_log)
    draw(axis, found, searches="points")
    label_axes(axis, _x_label(runs), part.name)


def _entries(axis: Axes, part: _Part, setting: Setting) -> None:
    """A curve for each entry, in the colours of the entries."""
    is_log = log_where_positive(axis, [part.values(run) for run in setting.runs], _RATIO)
    shown = []
    for i in range(len(part.entries)):
        found = curves([setting], _steps, lambda run, i=i: part.values(run)[:, i], logarithmic=is_log)
        shown += [replace(curve, index=i) for curve in found]
    is_search = all(run.is_search for run in setting.runs)
    draw(axis, shown, searches="points")
    axis.legend(handles(len(part.labels), lines=not is_search), part.labels, loc="center left", bbox_to_anchor=(1, 0.5))
    label_axes(axis, _x_label(setting.runs), part.name)


def _heat_map(axis: Axes, part: _Part, setting: Setting) -> None:
    """The values by step and entry; of several seeds, the mean over the rows that all have."""
    whole, broken = parted(setting)
    runs = [run for run in whole or broken if part.fits(run)]
    rows = min(len(run.rows) for run in runs)
    values = np.stack([part.values(run)[:rows] for run in runs])
    is_log = spreads(values, _RATIO)
    mean = np.exp(np.log(values).mean(0)) if is_log and len(values) > 1 else values.mean(0)
    norm = (LogNorm if is_log else Normalize)(*(mean.min(), mean.max()))
    mesh = axis.pcolormesh(
        _steps(runs[0])[:rows], np.arange(len(part.entries)), mean.T, norm=norm, cmap="viridis", rasterized=True
    )
    axis.figure.colorbar(mesh, ax=axis, label=part.name)
    axis.grid(visible=False)
    is_schedule = part.labels[0] == "step 0"
    label_axes(axis, _x_label(runs), "inner step" if is_schedule else "entry")
    if not is_schedule and len(part.labels) <= _MOST_TICKS and part.labels[0] != "0":
        axis.set_yticks(np.arange(len(part.labels)), part.labels)
        axis.set_ylabel("")


def _x_label(runs: Sequence[RecordedRun]) -> str:
    return "trial" if all(run.is_search for run in runs) else "outer step"
