"""The figures of runs: trajectories, losses against their cost, and a comparison."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hypergrad.plot.history import History

_COSTS = {"run/seconds": "wall time [s]", "run/products": "Hessian products"}
_COMPARED: dict[str, Callable[[History], np.ndarray]] = {
    "wall time [s]": lambda run: run.series("run/seconds"),
    "gradients (a product is two)": History.work,
    "inner steps": lambda run: run.series("run/inner_steps"),
}
_LOSSES = {"loss/dev": "-", "loss/test": "--"}


def trajectories(runs: list[History]) -> Figure:
    """Each hyperparameter over the outer steps, one panel for each; for a search, the points of its trials."""
    names = list(dict.fromkeys(name for run in runs for name in run.hyperparameters()))
    figure, axes = _panels(max(1, len(names)))
    for axis, name in zip(axes, names, strict=False):
        for index, run in enumerate(runs):
            values = run.hyperparameters().get(name)
            if values is None:
                continue
            alpha = 1 if values.shape[1] == 1 and not run.is_search else 0.4
            style = "." if run.is_search else "-"
            lines = axis.plot(run.series("step"), values, style, color=f"C{index}", alpha=alpha)
            lines[0].set_label(run.name)
        axis.set(xlabel="outer step", ylabel=name)
        _log_where_positive(axis)
    _legend(figure, axes)
    return figure


def losses_against(cost: str) -> Callable[[list[History]], Figure]:
    """A figure of dev loss (solid) and test loss (dashed) against a cost; for a search, the best so far."""

    def draw(runs: list[History]) -> Figure:
        figure, axes = _panels(1)
        for run, tag, style in _curves(runs):
            values = run.best_so_far(tag) if run.is_search else run.series(tag)
            steps = "steps-post" if run.is_search else "default"
            axes[0].plot(run.series(cost), values, drawstyle=steps, marker=".", markersize=4, **style)
        axes[0].set(xlabel=_COSTS[cost], ylabel="loss: dev (solid), test (dashed)")
        _legend(figure, axes)
        return figure

    return draw


def comparison(runs: list[History]) -> Figure:
    """The lowest dev loss so far, and its test loss, against wall time, gradients and inner steps."""
    figure, axes = _panels(len(_COMPARED))
    for axis, (label, cost) in zip(axes, _COMPARED.items(), strict=True):
        for run, tag, style in _curves(runs):
            axis.step(cost(run), run.best_so_far(tag), where="post", **style)
        axis.set(xlabel=label, ylabel="best dev loss (test there dashed)")
    _legend(figure, axes)
    return figure


FIGURES: dict[str, Callable[[list[History]], Figure]] = {
    "trajectories": trajectories,
    "loss_against_time": losses_against("run/seconds"),
    "loss_against_products": losses_against("run/products"),
    "comparison": comparison,
}


def _curves(runs: list[History]) -> Iterator[tuple[History, str, dict[str, Any]]]:
    """Each run with each loss that it has, and how to draw it: a colour per run, one label for both losses."""
    for index, run in enumerate(runs):
        for tag, line in _LOSSES.items():
            if np.isfinite(run.series(tag)).any():
                label = run.name if tag == "loss/dev" else None
                yield run, tag, {"linestyle": line, "color": f"C{index}", "label": label}


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(min(5 * count, 15), 4 * -(-count // 3)), layout="constrained")
    axes: Any = figure.subplots(-(-count // 3), min(count, 3), squeeze=False)
    return figure, list(axes.flat)


def _log_where_positive(axis: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.get_lines()])
    if (values > 0).all() and values.max() > 10 * values.min():
        axis.set_yscale("log")


def _legend(figure: Figure, axes: list[Axes]) -> None:
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", fontsize="small")
