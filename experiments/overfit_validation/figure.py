"""The figure of README.md, from numbers.json: python -m experiments.overfit_validation.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw dev accuracy and dev loss over the outer steps, the mean over the seeds."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, runs in load("overfit_validation").items():
        axes[0].plot(np.mean([run["dev"] for run in runs], axis=0), label=name)
        axes[1].semilogy(np.mean([run["loss"] for run in runs], axis=0), label=name)
    axes[0].set(xlabel="outer step", ylabel="accuracy on 50 dev images")
    axes[1].set(xlabel="outer step", ylabel="dev loss")
    axes[1].legend(fontsize="small")
    draw("overfit_validation", figure)


if __name__ == "__main__":
    main()
