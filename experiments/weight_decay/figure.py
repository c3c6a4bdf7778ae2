"""The figure of README.md, from numbers.json: python -m experiments.weight_decay.figure."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.numbers import draw, load


def draw_growth(time: Axes, memory: Axes, numbers: dict) -> None:
    """Time and peak memory of an outer step against the number of hyperparameters."""
    rows = numbers["growth"]
    counts = [row["hyperparameters"] for row in rows]
    for color, kind in enumerate(numbers["products"]):
        time.semilogx(counts, [row[f"{kind} / step"] for row in rows], "o-", color=f"C{color}", label=kind)
        memory.loglog(counts, [row[f"{kind}, MB"] for row in rows], "o-", color=f"C{color}", label=kind)
    memory.loglog(counts, [row["step, MB"] for row in rows], "s-", color="C2", label="plain training step")
    memory.loglog(counts, [4e-6 * d for d in counts], ":", color="black", label="a vector of d numbers")
    time.set(xlabel="hyperparameters d", ylabel="time of a hypergradient / training step", ylim=(0, None))
    memory.set(xlabel="hyperparameters d", ylabel="peak memory above w, λ and data [MB]")
    for axis in (time, memory):
        axis.legend(fontsize="small")


def main() -> None:
    """Draw the cost of an outer step, the losses over outer steps, and the penalty of each pixel and class."""
    numbers = load("weight_decay")
    figure = Figure(figsize=(14, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=[1.7, 1])
    above, below = grid[0].subgridspec(1, 3), grid[1].subgridspec(1, 10)
    time, memory, losses = (figure.add_subplot(above[i]) for i in range(3))
    draw_growth(time, memory, numbers)
    largest = max(run["hyperparameters"] for run in numbers["tuned"])
    for i, run in enumerate(run for run in numbers["tuned"] if run["hyperparameters"] == largest):
        for color, (name, label) in enumerate({"dev": "dev part that guides", "stop": "that stops"}.items()):
            losses.plot(run["path"][name], color=f"C{color}", alpha=0.8, label=label if i == 0 else None)
        losses.plot(run["path"]["test"], "--", color="C2", alpha=0.8, label="test" if i == 0 else None)
    losses.set(xlabel="outer step", ylabel=f"loss, {largest:,} penalties, three seeds")
    losses.legend(fontsize="small")
    penalties = np.array(next(run["log10_penalties"] for run in numbers["tuned"] if "log10_penalties" in run))
    low, high = np.percentile(penalties, [1, 99])
    axes = [figure.add_subplot(below[i]) for i in range(10)]
    figure.supxlabel("log₁₀ of the penalty on each weight of softmax regression, by class, seed 0", fontsize="medium")
    images = zip(axes, penalties.reshape(10, 28, 28), strict=True)
    shown = [axis.imshow(image, vmin=low, vmax=high, cmap="viridis") for axis, image in images]
    for axis in axes:
        axis.set_axis_off()
    figure.colorbar(shown[-1], ax=axes, fraction=0.02)
    draw("weight_decay", figure)


if __name__ == "__main__":
    main()
