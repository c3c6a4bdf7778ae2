"""The pictures of the tutorials, drawn from their own results; `make.py` calls this."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hypergrad.plot.panel import publication

_FOLDER = Path(__file__).resolve().parent / "img"
Names = dict[str, Any]
"""The variables of a tutorial after its last piece of code."""


def tuning(names: Names, folder: Path) -> Figure:
    """Losses, schedules, and penalties."""
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    losses, rates, penalties = figure.subplots(1, 3)
    for label, result in (("one learning rate", names["plain"]), ("all 65", names["result"])):
        losses.plot([row["step"] for row in result.history], [row["loss/dev"] for row in result.history], label=label)
        rates.plot(result.hparams["rate"].expand(names["T"]))
    losses.set(xlabel="outer step", ylabel="dev loss", ylim=(0, None))
    losses.legend()
    rates.set(xlabel="inner step", ylabel="learning rate", ylim=(0, None))
    penalties.plot(names["result"].trajectory["decay"])
    penalties.legend(names["result"].best.names("decay"), title="penalty of")
    penalties.set(xlabel="outer step", ylabel="penalty", yscale="log")
    return figure


def interrupted(names: Names, folder: Path) -> Figure:
    """The parts of the run on the undisturbed one."""
    figure = Figure(figsize=(5.5, 2.7), layout="constrained")
    axis = figure.subplots()
    files = (folder / "runs" / name / "metrics.jsonl" for name in ("ridge", "undisturbed"))
    loss, whole = ([json.loads(line)["loss/dev"] for line in file.read_text().splitlines()] for file in files)
    for part, steps in enumerate((range(8), range(8, 19), range(19, 31)), 1):
        axis.plot(steps, [loss[k] for k in steps], "o", label=f"part {part}")
    axis.plot(whole, color="black", linewidth=0.8, label="undisturbed")
    axis.set(xlabel="outer step", ylabel="dev loss")
    axis.legend()
    return figure


def influence(names: Names, folder: Path) -> Figure:
    """Scores against retraining, and the most harmful images."""
    figure = Figure(figsize=(8, 2.7), layout="constrained")
    left, right = _halves(figure)
    axis, scores, changes, y = left.subplots(), names["scores"], names["changes"], names["y"]
    axis.axline((0, 0), slope=1, color="black", linewidth=0.8)
    axis.plot(scores[names["chosen"]], changes, "o")
    axis.locator_params(nbins=5)
    axis.set(xlabel="score", ylabel="change of the dev loss")
    for part, i in zip(_row_of(right), names["order"][:6], strict=True):
        show(part, names["data"].train.X[i], f"called {y[i]}\nis {names['data'].train.y[i]}")
    return figure


def cleaning(names: Names, folder: Path) -> Figure:
    """The weights, and the images with the smallest ones."""
    figure = Figure(figsize=(8, 2.7), layout="constrained")
    left, right = _halves(figure)
    axis, problem, weights = left.subplots(), names["problem"], names["result"].hparams["weights"]
    wrong = problem.is_wrong
    axis.hist([weights[~wrong], weights[wrong]], bins=20, stacked=True, label=["right label", "wrong label"])
    axis.set(xlabel="weight", ylabel="images")
    axis.legend()
    for part, i in zip(_row_of(right), weights.argsort()[:6], strict=True):
        show(part, problem.X[i], f"called {problem.y[i]}\nis {names['data'].train.y[i]}")
    return figure


def _halves(figure: Any) -> Any:
    return figure.subfigures(1, 2, width_ratios=(1, 1.3))


def _row_of(figure: Any) -> Any:
    return figure.subplots(1, 6).flat


def show(axis: Axes, image: Tensor, title: str) -> None:
    """An image of 64 pixels with a title."""
    axis.imshow(image.view(8, 8), cmap="gray_r", interpolation="nearest")
    axis.set_title(title, fontsize="medium")
    axis.set_axis_off()


_FIGURES: dict[str, Callable[[Names, Path], Figure]] = {
    "tuning": tuning,
    "interrupted": interrupted,
    "influence": influence,
    "cleaning": cleaning,
}


def draw(page: str, names: Names, folder: Path) -> None:
    """Draw the picture of a page as a PNG of at most 80 kB.

    Args:
        page: its name.
        names: its variables.
        folder: the one in which its code ran.
    """
    _FOLDER.mkdir(exist_ok=True)
    with publication():
        _FIGURES[page](names, folder).savefig(_FOLDER / f"{page}.png", dpi=100, metadata={"Software": None})
