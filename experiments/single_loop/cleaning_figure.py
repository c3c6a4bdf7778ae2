"""The figure of hyper-cleaning in README.md, from cleaning.json: python -m experiments.single_loop.cleaning_figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load
from experiments.single_loop.cleaning_table import GOAL

TITLES = {"linear": "softmax regression", "cnn": "two convolutions"}
STYLES = {"oracle": "--", "baseline": ":", "dev alone": "-."}


def main() -> None:
    """Draw test accuracy against CPU time, and F1 for the linear model, on the first seed."""
    numbers = load("single_loop", "cleaning")
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (name, title) in zip(axes, TITLES.items(), strict=False):
        found = numbers[name]["0"]
        for each, history in found["runs"].items():
            axis.plot(history["cpu"], history["test"], ".-", label=each, markersize=3)
        for each, style in STYLES.items():
            axis.axhline(found["references"][each]["test"], color="black", linestyle=style, linewidth=1, label=each)
        axis.set(xlabel="CPU seconds", ylabel="test accuracy", title=title, ylim=(0.7, None))
        axis.legend(fontsize="x-small")
    axes[0].axvline(9, color="gray", linewidth=0.5)
    axes[0].axhline(GOAL, color="gray", linewidth=0.5)
    for each, history in numbers["linear"]["0"]["runs"].items():
        axes[2].plot(history["cpu"], history["f1"], ".-", label=each, markersize=3)
    axes[2].set(
        xlabel="CPU seconds", ylabel="F1 of finding the wrong labels", title="softmax regression", ylim=(0.8, None)
    )
    draw("single_loop", figure, "cleaning")


if __name__ == "__main__":
    main()
