"""The figures of runs: trajectories, losses against their cost, and a comparison."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from hypergrad.plot.curve import Series, curves, label, says_what_bands_are
from hypergrad.plot.panel import draw, label_axes, legend, log_where_positive, panels
from hypergrad.plot.trajectory import trajectories
from hypergrad.table.recorded_run import RecordedRun
from hypergrad.table.settings import Setting

_LOSSES = {"loss/dev": "dev loss", "loss/test": "test loss"}
_RATIO = 10.0
"""Losses that differ by more than this have a logarithmic axis."""
_COMPARED: dict[str, Series] = {
    "wall time [s]": lambda run: run.series("run/seconds"),
    "gradients (a product is two)": RecordedRun.work,
    "inner steps": lambda run: run.series("run/inner_steps"),
}


def losses_against(tag: str, words: str) -> Callable[[list[Setting]], Figure]:
    """A figure of the dev loss, and of the test loss beside it, against a number; for a search, the best so far."""

    def drawn(settings: list[Setting]) -> Figure:
        losses = _recorded(settings)
        figure, axes = panels(len(losses))
        for axis, (loss, name) in zip(axes, losses.items(), strict=True):
            found = curves(settings, lambda run: run.series(tag), partial(_reached, loss=loss))
            log_where_positive(axis, [curve.y for curve in found], _RATIO)
            draw(axis, found)
            label_axes(axis, words, name)
        _legend(figure, settings)
        return figure

    return drawn


def comparison(settings: list[Setting]) -> Figure:
    """The lowest dev loss so far, and below it its test loss, against wall time, gradients and inner steps."""
    losses = _recorded(settings)
    figure, axes = panels(len(_COMPARED) * len(losses), len(_COMPARED))
    pairs = [(loss, words) for loss in losses for words in _COMPARED]
    for axis, (loss, words) in zip(axes, pairs, strict=True):
        found = curves(settings, _COMPARED[words], lambda run, loss=loss: run.best_so_far(loss))
        log_where_positive(axis, [curve.y for curve in found], _RATIO)
        draw(axis, found, steps=True)
        label_axes(axis, words, "best dev loss" if loss == "loss/dev" else "test loss there")
    _legend(figure, settings)
    return figure


FIGURES: dict[str, Callable[[list[Setting]], Figure]] = {
    "trajectories": trajectories,
    "loss_against_steps": losses_against("step", "outer step"),
    "loss_against_time": losses_against("run/seconds", "wall time [s]"),
    "loss_against_products": losses_against("run/products", "Hessian products"),
    "comparison": comparison,
}


def _reached(run: RecordedRun, loss: str) -> np.ndarray:
    return run.best_so_far(loss) if run.is_search else run.series(loss)


def _recorded(settings: Sequence[Setting]) -> dict[str, str]:
    """The losses that a run has; the dev loss in any case."""
    runs = [run for setting in settings for run in setting.runs]
    return {
        loss: name
        for loss, name in _LOSSES.items()
        if loss == "loss/dev" or any(np.isfinite(run.series(loss)).any() for run in runs)
    }


def _legend(figure: Figure, settings: Sequence[Setting]) -> None:
    if len(settings) > 1 or len(settings[0].runs) > 1:
        legend(figure, [label(setting) for setting in settings], says_what_bands_are(settings))
