"""The pictures of the tutorials, drawn from their own results; `__main__.py` calls this."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hypergrad.plot.panel import publication
from hypergrad.table.recorded_run import RecordedRun

_FOLDER = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "img"
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
    axis.locator_params(axis="x", nbins=3)
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


def implicit_layers(names: Names, folder: Path) -> Figure:
    """A signal before and after the layer, and the strengths."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    signal, strengths = figure.subplots(1, 2)
    signal.plot(names["x"][0], ".", label="noisy")
    signal.plot(names["clean"][0], color="black", linewidth=0.8, label="clean")
    signal.plot(names["z"][0].detach(), label="after the layer")
    signal.set(xlabel="place")
    signal.legend()
    strengths.plot(names["log"].detach().exp())
    strengths.set(xlabel="place of a jump", ylabel="strength", yscale="log")
    return figure


def stochastic_loop(names: Names, folder: Path) -> Figure:
    """The dev loss against the images."""
    figure = Figure(figsize=(5.5, 2.7), layout="constrained")
    axis = figure.subplots()
    for name, path in names["paths"].items():
        axis.plot(*zip(*path, strict=True), "o-", label=name)
    axis.set(xlabel="train images through the model", ylabel="dev loss", xscale="log", ylim=(0, 1))
    axis.legend()
    return figure


def sweeps(names: Names, folder: Path) -> Figure:
    """The lowest dev loss so far, and its test loss, for each split."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for color, (name, results) in enumerate({"gradient": names["runs"], "TPE": names["searches"]}.items()):
        for i, result in enumerate(results):
            run, label = RecordedRun(folder, result.history), None if i else name
            for axis, tag in zip(axes, ("loss/dev", "loss/test"), strict=True):
                axis.step(run.work(), run.best_so_far(tag), where="post", color=f"C{color}", label=label)
    for axis, words in zip(axes, ("lowest dev loss", "test loss there"), strict=True):
        axis.set(xlabel="gradients (a product is two)", ylabel=words)
    axes[1].legend()  # on the first, it would hide a curve
    return figure


def several_processes(names: Names, folder: Path) -> Figure:
    """Work and messages of a process."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    work, sent = figure.subplots(1, 2)
    plans = names["plans"]
    work.plot(list(plans), [plan.total.flops / 1e6 for plan in plans.values()], "o-")
    work.set(xlabel="processes", ylabel="million operations", xscale="log", yscale="log", ylim=(0.1, None))
    sent.plot(list(plans), [plan.sent / 1e6 for plan in plans.values()], "o-")
    sent.set(xlabel="processes", ylabel="MB sent", xscale="log", ylim=(0, None))
    return figure


def meta_learning(names: Names, folder: Path) -> Figure:
    """A wave with the network before and after a step, and the errors."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    wave, errors = figure.subplots(1, 2)
    x = torch.linspace(-5, 5, 100)[:, None]
    for label, weights in (("before", names["start"]), ("after one step", names["adapted"])):
        wave.plot(x, names["output"](weights, x), label=label)
    wave.plot(names["x"][:, 0], names["y"], "ko", label="ten points")
    wave.legend()
    history = names["result"].history
    for label, tag in (("before", "metric/test_loss_before"), ("after one step", "loss/test")):
        errors.plot([row["step"] for row in history], [row[tag] for row in history], label=label)
    errors.set(xlabel="outer step", ylabel="error on new waves", ylim=(0, None))
    errors.legend()
    return figure


def augmentation(names: Names, folder: Path) -> Figure:
    """Losses, deviations, and a digit with five random maps."""
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    curves, images = figure.subfigures(1, 2, width_ratios=(1.8, 1))
    losses, deviations = curves.subplots(1, 2)
    for label, result in (("as they are", names["still"]), ("moved", names["moved"])):
        losses.plot([row["step"] for row in result.history], [row["loss/dev"] for row in result.history], label=label)
    losses.set(xlabel="outer step", ylabel="dev loss", ylim=(0, None))
    losses.legend()
    deviations.plot(names["moved"].trajectory["move"], label=names["moved"].best.names("move"))
    deviations.set(xlabel="outer step", ylabel="deviation")
    deviations.legend(fontsize=6)
    digit = names["data"].train.X[:1].expand(6, 64)
    effect, draws = names["hg"].RandomAffine(per_entry=True), torch.Generator().manual_seed(0)
    shown = effect.augmented(names["moved"].hparams["move"], digit, draws)
    for i, part in enumerate(images.subplots(2, 3).flat):
        show(part, digit[0] if i == 0 else shown[i], "as it is" if i == 0 else "moved")
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
    one.__name__: one
    for one in (
        *(tuning, interrupted, influence, cleaning, implicit_layers),
        *(stochastic_loop, sweeps, several_processes, meta_learning, augmentation),
    )
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
