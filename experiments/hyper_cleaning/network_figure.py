"""The figure of the network in README.md, from network.json: python -m experiments.hyper_cleaning.network_figure."""

import statistics
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.numbers import draw, load

STYLES = {"oracle": "--", "baseline": ":", "dev alone": "-."}


def draw_runs(axis: Axes, seeds: list[dict[str, Any]], key: str, colors: dict[str, str]) -> None:
    """One line for the mean over the seeds of each run, and the runs themselves thin."""
    for name, color in colors.items():
        runs = [found["runs"][name] for found in seeds]
        rows = min(len(run["cpu"]) for run in runs)
        for run in runs:
            axis.plot(run["cpu"], run[key], color=color, linewidth=0.4)
        cpu, mean = ([statistics.mean(run[k][i] for run in runs) for i in range(rows)] for k in ("cpu", key))
        axis.plot(cpu, mean, ".-" if "FAC" in name else "x--", color=color, label=name, markersize=5)
    axis.set_xlabel("CPU seconds")


def main() -> None:
    """Draw test accuracy, dev loss and F1 against CPU time."""
    seeds = list(load("hyper_cleaning", "network").values())
    colors = {name: f"C{place}" for place, name in enumerate(seeds[0]["runs"])}
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, key in zip(axes, ("test", "dev", "f1"), strict=True):
        draw_runs(axis, seeds, key, colors)
    for name, style in STYLES.items():
        mean = statistics.mean(found["references"][name]["test"] for found in seeds)
        axes[0].axhline(mean, color="black", linestyle=style, linewidth=1, label=name)
    axes[0].set(ylabel="test accuracy", ylim=(0.6, None))
    axes[1].set(ylabel="dev loss", ylim=(0.5, 1.5))
    axes[2].set_ylabel("F1 of finding the wrong labels")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    draw("hyper_cleaning", figure, "network")


if __name__ == "__main__":
    main()
