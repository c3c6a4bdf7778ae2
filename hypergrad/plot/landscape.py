"""The dev loss over one or two hyperparameters, with the path of a run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_LEVELS = 20
"""Colours of a map: as many as the eye tells apart in one colour scale."""


@dataclass(frozen=True)
class Landscape:
    """The dev loss on a grid, and a path over it.

    Attributes:
        names: of the one or two axes.
        ticks: the values of the grid along each axis, in natural units.
        losses: the dev loss on the grid, shape (k,) or (k, k) with the first axis first; NaN if it is not known.
        path: the values of a run at its steps, shape (records, number of axes).
        path_losses: the dev loss of the run there, shape (records,).
    """

    names: list[str]
    ticks: list[np.ndarray]
    losses: np.ndarray
    path: np.ndarray
    path_losses: np.ndarray

    def figure(self) -> Figure:
        """A curve over one hyperparameter, a map with contours over two; the path begins at ○ and ends at ★."""
        figure = Figure(figsize=(4.4, 3.3), layout="constrained")
        axis: Any = figure.subplots()
        if len(self.names) == 1:
            self._curve(axis)
        else:
            self._map(figure, axis)
        for ticks, set_scale in zip(self.ticks, (axis.set_xscale, axis.set_yscale), strict=False):
            if (ticks > 0).all() and ticks.max() > 10 * ticks.min():
                set_scale("log")
        return figure

    def image(self) -> np.ndarray:
        """The figure as colours, shape (height, width, 3), from 0 to 255."""
        canvas = FigureCanvasAgg(self.figure())
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3]

    def _curve(self, axis: Axes) -> None:
        axis.plot(self.ticks[0], self.losses, color="C0", label="retrained")
        _path(axis, self.path[:, 0], self.path_losses)
        axis.set(xlabel=self.names[0], ylabel="dev loss")
        axis.legend(fontsize="small")

    def _map(self, figure: Figure, axis: Axes) -> None:
        x, y = self.ticks
        losses = np.ma.masked_invalid(self.losses.T)
        if losses.count() > 1:
            # Levels by rank: equal steps of the loss would show a steep wall and no valley.
            levels = np.unique(np.quantile(losses.compressed(), np.linspace(0, 1, _LEVELS)))
            filled = axis.contourf(x, y, losses, levels=levels, cmap="viridis")
            figure.colorbar(filled, ax=axis, label="dev loss", format="%.4g")
        _path(axis, self.path[:, 0], self.path[:, 1])
        axis.set(xlabel=self.names[0], ylabel=self.names[1])
        axis.legend(fontsize="small")


def _path(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    axis.plot(x, y, color="C3", linewidth=1, marker=".", markersize=4, label="run")
    axis.plot(x[:1], y[:1], "o", color="C3", markerfacecolor="white")
    axis.plot(x[-1:], y[-1:], "*", color="C3", markersize=12)
