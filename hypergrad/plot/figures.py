"""The figures of runs: trajectories, losses against what they cost, and a comparison."""

from collections.abc import Callable
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
    """Each hyperparameter over the outer steps, one panel for each name; of a search, the points that it tried."""
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
    """A figure of dev loss (solid) and test loss (dashed) against a cost; of a search, the best so far."""

    def draw(runs: list[History]) -> Figure:
        figure, axes = _panels(1)
        for index, run in enumerate(runs):
            for tag, style in _LOSSES.items():
                if np.isfinite(run.series(tag)).any():
                    values = run.best_so_far(tag) if run.is_search else run.series(tag)
                    axes[0].plot(
                        run.series(cost),
                        values,
                        style,
                        drawstyle="steps-post" if run.is_search else "default",
                        color=f"C{index}",
                        marker=".",
                        markersize=4,
                        label=run.name if tag == "loss/dev" else None,
                    )
        axes[0].set(xlabel=_COSTS[cost], ylabel="loss: dev (solid), test (dashed)")
        _legend(figure, axes)
        return figure

    return draw


def comparison(runs: list[History]) -> Figure:
    """The lowest dev loss so far, and the test loss there, against wall time, gradients and inner steps."""
    figure, axes = _panels(len(_COMPARED))
    for axis, (label, cost) in zip(axes, _COMPARED.items(), strict=True):
        for index, run in enumerate(runs):
            for tag, style in _LOSSES.items():
                if np.isfinite(run.series(tag)).any():
                    axis.step(
                        cost(run),
                        run.best_so_far(tag),
                        style,
                        where="post",
                        color=f"C{index}",
                        label=run.name if tag == "loss/dev" else None,
                    )
        axis.set(xlabel=label, ylabel="best dev loss (test there dashed)")
    _legend(figure, axes)
    return figure


FIGURES: dict[str, Callable[[list[History]], Figure]] = {
    "trajectories": trajectories,
    "loss_against_time": losses_against("run/seconds"),
    "loss_against_products": losses_against("run/products"),
    "comparison": comparison,
}


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
