"""The figures of README.md, from numbers.json: python -m experiments.weight_decay.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw the cost of an outer step against the number of hyperparameters, and the penalty of each pixel."""
    numbers = load("weight_decay")
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.3, 1])
    axes = above.subplots(1, 2)
    counts = [row["hyperparameters"] for row in numbers["growth"]]
    axes[0].semilogx(counts, [row["time"] for row in numbers["growth"]], "o-")
    axes[0].set(xlabel="hyperparameters", ylabel="time / plain training step", ylim=(0, None))
    axes[1].loglog(counts, [row["outer_mb"] for row in numbers["growth"]], "o-", label="outer step")
    axes[1].loglog(counts, [row["step_mb"] for row in numbers["growth"]], "s-", label="plain training step")
    axes[1].set(xlabel="hyperparameters", ylabel="peak memory [MB]")
    axes[1].legend()
    penalties = np.array(numbers["log10_penalties"]).reshape(10, 28, 28)
    low, high = np.percentile(penalties, [1, 99])
    below.suptitle("log₁₀ of the penalty on each weight, by class", fontsize="medium")
    for axis, image in zip(below.subplots(1, 10), penalties, strict=True):
        shown = axis.imshow(image, vmin=low, vmax=high, cmap="viridis")
        axis.set_axis_off()
    below.colorbar(shown, ax=below.axes, fraction=0.02)
    draw("weight_decay", figure)


if __name__ == "__main__":
    main()
