"""Panels and legends of figures."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hypergrad.plot.curve import Curve

_WIDTH, _HEIGHT, _COLUMNS = 3.2, 2.4, 3
"""Inches, and panels side by side: two panels are as wide as the text of a page of a journal."""
_MARKERS = "osD^vPX*<>"
_CHARACTERS, _LINE = 14, 0.18
"""Characters in an inch of a legend, and the inches of one of its lines."""
_DASH = 3
"""The length of a dash of coinciding curves, in line widths."""
_NEAR = 1.5
"""Points between curves that the eye does not tell apart."""


@contextmanager
def publication() -> Iterator[None]:
    """The style of the figures: colours that the colour-blind tell apart (Petroff, 2021), and fonts for print."""
    plain = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "legend.fontsize": 8}
    light = {"axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False, "lines.markersize": 4}
    with style.context(["petroff10", plain | light]):
        yield


def label_axes(axis: Axes, x: str, y: str) -> None:
    """Name the axes; steps and trials have whole numbers."""
    axis.set(xlabel=x, ylabel=y)
    if x in ("outer step", "trial"):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def panels(count: int, columns: int = _COLUMNS) -> tuple[Figure, list[Axes]]:
    """A figure with this number of panels, each with room of its own for what stands beside it."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(_WIDTH * columns, 1.3 * _WIDTH), _HEIGHT * rows), layout="constrained")
    parts: Any = figure.subfigures(rows, columns, squeeze=False)
    return figure, [part.subplots() for part in parts.flat[:count]]


def draw(axis: Axes, curves: Sequence[Curve], *, searches: str = "steps", steps: bool = False) -> None:
    """Draw curves, each in its colour with its marker, bands of one standard error, and × where a run broke off.

    Args:
        axis: where to draw.
        curves: in the order of drawing.
        searches: draw those of searches as "steps" or as "points".
        steps: draw all as steps.
    """
    lines: list[Line2D] = []
    for curve in curves:
        is_points, is_steps = curve.is_search and searches == "points", steps or curve.is_search
        look = look_of(curve.index, lines=not is_points)
        drawn = axis.plot(curve.x, curve.y, drawstyle="steps-post" if is_steps and not is_points else None, **look)
        lines += [] if is_points else drawn
        if curve.low is not None and curve.high is not None:
            step: Any = "post" if is_steps else None
            axis.fill_between(curve.x, curve.low, curve.high, step=step, color=look["color"], alpha=0.2, linewidth=0)
        if curve.breaks_off:
            axis.plot(curve.x[-1:], curve.y[-1:], "x", color=look["color"], markersize=8, markeredgewidth=2)
    tell_apart(axis, lines)


def look_of(index: int, *, lines: bool = True) -> dict[str, Any]:
    """The colour and the marker of a curve; markers of different curves are at different places."""
    look: dict[str, Any] = {"color": f"C{index}", "marker": _MARKERS[index % len(_MARKERS)]}
    return look | ({"markevery": (0.03 * (index % 5), 0.18)} if lines else {"linestyle": "None"})


def tell_apart(axis: Axes, lines: Sequence[Line2D]) -> None:
    """Draw the longest of lines that coincide solid, and the others as dashes above it, each beside the others."""
    axis.autoscale_view()
    paths = [_path(axis, line) for line in lines]
    groups: list[list[int]] = []
    for i, path in enumerate(paths):
        if len(path) == 0:
            continue
        near = [group for group in groups if any(_coincide(paths[j], path) for j in group)]
        groups = [group for group in groups if group not in near] + [[*sum(near, []), i]]
    for group in groups:
        below, *above = sorted(group, key=lambda i: -np.ptp(paths[i][:, 0]))
        lines[below].set_zorder(1.9)
        for place, i in enumerate(sorted(above), 1):
            offset = -place % len(group) * _DASH
            lines[i].set_linestyle((offset, (_DASH, _DASH * (len(group) - 1))))


def _path(axis: Axes, line: Line2D) -> np.ndarray:
    """The finite points of a line in its panel, shape (points, 2), in 1/72 inches."""
    data = np.column_stack([np.asarray(values, dtype=float) for values in line.get_data()])
    points = (axis.transScale + axis.transLimits).transform(data) * (72 * _WIDTH, 72 * _HEIGHT)
    return points[np.isfinite(points).all(1)]


def _coincide(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two paths are as good as the same over more than half of the range that they share."""
    low, high = max(one[0, 0], other[0, 0]), min(one[-1, 0], other[-1, 0])
    if low > high:
        return False
    x = np.linspace(low, high, 50)
    gaps = np.abs(np.interp(x, *one.T) - np.interp(x, *other.T))
    return bool((gaps < _NEAR).mean() > 0.5)


def log_where_positive(axis: Axes, values: Sequence[np.ndarray], ratio: float) -> bool:
    """Make the y axis logarithmic if all values are positive and differ by more than a ratio; return whether."""
    is_log = bool(values) and spreads(np.concatenate([np.ravel(part) for part in values]), ratio)
    if is_log:
        axis.set_yscale("log")
    return is_log


def spreads(values: np.ndarray, ratio: float) -> bool:
    """Whether all finite values are positive and differ by more than a ratio."""
    known = values[np.isfinite(values)]
    return bool(len(known) and (known > 0).all() and known.max() > ratio * known.min())


def handles(count: int, *, lines: bool = True) -> list[Line2D]:
    """A sample of each curve for a legend."""
    looks: list[dict[str, Any]] = [look_of(index, lines=lines) | {"markevery": 1} for index in range(count)]
    return [Line2D([], [], **look) for look in looks]


def legend(figure: Figure, names: Sequence[str], title: str | None = None) -> None:
    """A legend below the panels, of all settings in the order of their indices, in columns that fit."""
    width, height = figure.get_size_inches()
    columns = max(1, min(len(names), math.floor(width * _CHARACTERS / (max(map(len, names)) + 8))))
    lines = -(-len(names) // columns) + (title is not None)
    figure.set_size_inches(width, height + _LINE * lines)
    figure.legend(
        handles(len(names)), names, loc="outside lower center", ncols=columns, title=title, title_fontsize="medium"
    )
