"""The figure of README.md, from numbers.json: python -m experiments.scaling.figure."""

import math

from matplotlib.axes import Axes

from experiments.numbers import draw, load
from experiments.scaling.methods import METHODS
from hypergrad.plot.panel import label_axes, look_of, panels, publication


def main() -> None:
    """Draw the times against the ranks, and what local steps save and cost."""
    numbers = load("scaling")
    with publication():
        figure, (here, cluster, rates, biases) = panels(4, columns=2)
        times(here, numbers)
        on_cluster(cluster, numbers)
        local_steps(rates, biases, numbers["local_steps"])
    draw("scaling", figure)


def times(axis: Axes, numbers: dict) -> None:
    """What was measured here, and the model of it."""
    rows = numbers["here"]["times"]
    names = list(dict.fromkeys(row["method"] for row in rows))
    ranks = list(dict.fromkeys(row["ranks"] for row in rows))
    for k, name in enumerate(names):
        mine = [row for row in rows if row["method"] == name]
        color = look_of(k)["color"]
        axis.loglog(ranks, [row["computed"] + row["sent"] for row in mine], "-", color=color, label=name)
        axis.loglog(ranks, [row["seconds"] for row in mine], "o", color=color)
        axis.loglog(ranks, [row["cpu"] for row in mine], "x", color=color)
    axis.set_title("here; ● measured, × CPU of a rank")
    axis.set_xticks(ranks, [str(p) for p in ranks])
    axis.legend()
    label_axes(axis, "ranks", "seconds")


def on_cluster(axis: Axes, numbers: dict) -> None:
    """The simulation of a cluster."""
    for k, name in enumerate(METHODS):
        seconds = [sum(pair) for pair in numbers["gpt"][name]]
        axis.loglog(numbers["ranks"], seconds, **look_of(k), label=name)
    axis.set_title("GPT-2 of 124 M on H100s")
    axis.legend(fontsize=6)
    label_axes(axis, "ranks", "seconds")


def local_steps(rates: Axes, biases: Axes, rows: list[dict]) -> None:
    """How many averages are needed, and where they end."""
    rows = [row for row in rows if row["lr"] == 0.1]
    for k, apart in enumerate(dict.fromkeys(row["apart"] for row in rows)):
        mine = [row for row in rows if row["apart"] == apart]
        local, look = [row["local"] for row in mine], look_of(k)
        rates.loglog(local, [math.log(100) / -math.log(row["rate"]) for row in mine], **look, label=f"apart {apart:g}")
        biases.loglog(local[1:], [row["bias"] for row in mine[1:]], **look, label=f"apart {apart:g}")
        biases.loglog(local, [row["noisy"] for row in mine], ":", color=look["color"])
    rates.legend()
    label_axes(rates, "local moves k", "averages to a hundredth")
    label_axes(biases, "local moves k", "gap of F at the end; ⋯ with noise")


if __name__ == "__main__":
    main()
