"""The figure of README.md, from numbers.json: python -m experiments.overfit_validation.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load
from hypergrad.plot.panel import look_of, publication


@publication()
def main() -> None:
    """Draw dev accuracy and dev loss over the outer steps, the mean over the seeds with its standard error."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for index, (name, runs) in enumerate(load("overfit_validation").items()):
        for axis, key in zip(axes, ("dev", "loss"), strict=True):
            values = np.array([run[key] for run in runs])
            mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))
            axis.plot(mean, label=f"{name} ({len(values)} seeds)", **look_of(index))
            axis.fill_between(range(len(mean)), mean - error, mean + error, color=f"C{index}", alpha=0.2, linewidth=0)
    axes[1].set_yscale("log")
    axes[0].set(xlabel="outer step", ylabel="accuracy on 50 dev images")
    axes[1].set(xlabel="outer step", ylabel="dev loss")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, title="mean ± standard error"
    )
    draw("overfit_validation", figure)


if __name__ == "__main__":
    main()
