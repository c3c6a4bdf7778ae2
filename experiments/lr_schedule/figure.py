"""The figure of README.md, from numbers.json: python -m experiments.lr_schedule.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw the dev loss over the outer steps, and the learned schedules."""
    numbers = load("lr_schedule")
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for tag, style in (("loss/dev", "-"), ("loss/test", "--")):
        axes[0].plot([row[tag] for row in numbers["history"]], style, color="C0", label=f"800 rates, {tag[5:]}")
        axes[0].axhline(numbers["fixed"][tag], linestyle=style, color="C1", label=f"best fixed rate, {tag[5:]}")
    axes[0].set(xlabel="outer step", ylabel="loss after 100 training steps")
    axes[0].legend(fontsize="small")
    rates = np.array(numbers["rates"])
    for layer in range(4):
        axes[1].semilogy(rates[:, 2 * layer], color=f"C{layer}", label=f"weights of layer {layer + 1}")
        axes[1].semilogy(rates[:, 2 * layer + 1], ":", color=f"C{layer}")
    axes[1].set(xlabel="training step", ylabel="learning rate (biases dotted)")
    axes[1].legend(fontsize="small")
    draw("lr_schedule", figure)


if __name__ == "__main__":
    main()
