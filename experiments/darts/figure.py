"""The figure of README.md, from numbers.json: python -m experiments.darts.figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.darts.table import ESTIMATORS, OUTER_STEPS
from experiments.numbers import draw, load
from hypergrad.model.cell import OPERATIONS


def shares(axis: Axes, steps: np.ndarray, edge: int) -> None:
    """The shares of the operations of an edge over the search; steps has shape (records, edges, operations)."""
    begin, end = ((0, 1), (0, 2), (1, 2))[edge]
    for k, name in enumerate(OPERATIONS):
        axis.plot(np.linspace(0, OUTER_STEPS, len(steps)), steps[:, edge, k], label=name)
    axis.set(title=f"from node {begin} to node {end}", xlabel="outer step", ylim=(0, 1))


def losses(axis: Axes, seeds: list[dict[str, Any]]) -> None:
    """Dev and test loss of the random architectures and of those that were found."""
    for found in seeds:
        axis.plot(found["random"]["dev"], found["random"]["test"], ".", color="0.7", label="random")
        for k, name in enumerate(ESTIMATORS):
            one = found["found"][name]["architecture"]
            axis.plot(one["dev"], one["test"], "P", color=f"C{k}", label=name)
        best = found["random search"]
        axis.plot(best["dev"], best["test"], "kx", label="random search")
    labelled = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    axis.legend(labelled.values(), labelled.keys(), fontsize="small")
    axis.set(xlabel="dev loss of the architecture", ylabel="test loss", xscale="log", yscale="log")


def main() -> None:
    """Draw what the search does on seed 0, and what it finds on all seeds."""
    seeds = load("darts")["seeds"]
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    *edges, axis = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.5])
    steps = np.array(seeds[0]["shares"])
    for edge, each in enumerate(edges):
        shares(each, steps, edge)
    edges[0].set_ylabel("share (seed 0, unrolled)")
    edges[0].legend(fontsize="small")
    losses(axis, seeds)
    draw("darts", figure)


if __name__ == "__main__":
    main()
