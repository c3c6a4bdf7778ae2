"""The figure of README.md, from numbers.json: python -m experiments.lr_schedule.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load

STYLES = {"fixed 0.05, the start": ":", "best fixed, by TPE": "--", "800, by descent": "-"}


def main() -> None:
    """Draw the dev loss over training and over the outer steps, and the learned schedules of the layers."""
    runs = load("lr_schedule")
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(2, 2)
    for i, run in enumerate(runs.values()):
        for color, (name, style) in enumerate(STYLES.items()):
            axes[0, 0].plot(run["curves"][name], style, color=f"C{color}", alpha=0.8, label=name if i == 0 else None)
        axes[0, 1].plot(run["outer"]["loss/dev"], color="C2", alpha=0.8, label="800 rates" if i == 0 else None)
        fixed = run["rows"]["best fixed, by TPE"]["dev"]
        axes[0, 1].axhline(fixed, linestyle="--", color="C1", alpha=0.8, label="best fixed rate" if i == 0 else None)
    axes[0, 0].set(xlabel="training step", ylabel=f"dev loss, {len(runs)} seeds", ylim=(0.45, 1.5))
    axes[0, 1].set(xlabel="outer step", ylabel="dev loss after 100 training steps")
    rates = np.array([run["rates"] for run in runs.values()])
    for axis, offset, what in ((axes[1, 0], 0, "weights"), (axes[1, 1], 1, "biases")):
        for layer in range(4):
            found, color = rates[:, 2 * layer + offset], f"C{layer}"
            mean = np.exp(np.log(found).mean(0))
            axis.semilogy(mean, color=color, label=f"{what} of layer {layer + 1}")
            axis.fill_between(range(len(mean)), found.min(0), found.max(0), color=color, alpha=0.2)
        axis.axhline(0.05, color="black", linestyle=":", linewidth=1)
        axis.set(xlabel="training step", ylabel="learning rate, mean and range over seeds")
    for axis in axes.flat:
        axis.legend(fontsize="small")
    draw("lr_schedule", figure)


if __name__ == "__main__":
    main()
