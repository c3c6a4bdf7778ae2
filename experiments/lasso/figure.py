"""The figure of README.md: python -m experiments.lasso.figure."""

import torch
from matplotlib.figure import Figure

import hypergrad as hg
from experiments.lasso.table import DATA, GRID, SEARCHES, grid, search
from experiments.numbers import draw

SEEDS = (0, 2, 3)


def main() -> None:
    """Draw the dev loss over the penalty for three splits of the diabetes data, and where the searches end."""
    torch.set_default_dtype(torch.float64)
    make, _, end, start = DATA["diabetes"]
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for seed, axis in zip(SEEDS, figure.subplots(1, len(SEEDS)), strict=True):
        data = make(seed=seed)
        ratios = torch.logspace(0, -3, GRID)
        losses = [grid(hg.Lasso(data), ratio[None]).dev for ratio in ratios]
        axis.plot(ratios, losses, color="black", label="grid")
        for index, name in enumerate(SEARCHES):
            found, _ = search(name, data, end, start)
            axis.plot(10**found.at, found.dev, f"C{index}{'os^D'[index]}", fillstyle="none", markersize=9, label=name)
        axis.set(xscale="log", xlabel="l1 / l1_max", ylabel="dev loss", title=f"seed {seed}")
        axis.set_ylim(0.99 * min(losses), 1.15 * min(losses))
    figure.axes[0].legend(fontsize="small")
    draw("lasso", figure)


if __name__ == "__main__":
    main()
