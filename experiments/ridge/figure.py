"""The figure of README.md: python -m experiments.ridge.figure."""

import torch
from matplotlib.figure import Figure

import hypergrad as hg
from experiments.numbers import draw
from experiments.ridge.table import ESTIMATORS, LBFGS, losses


def main() -> None:
    """Draw dev and test loss over λ for the split of seed 3, and where each estimator's descent ends."""
    torch.set_default_dtype(torch.float64)
    problem = hg.Ridge(hg.diabetes(seed=3))
    grid = torch.linspace(-6, 2, 161)
    found = [losses(problem, x) for x in grid.tolist()]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for index, name in enumerate(("dev loss", "test loss")):
        axis.plot(grid.exp(), [pair[index] for pair in found], label=name)
    for marker, (name, estimator) in zip("o^sx", ESTIMATORS.items(), strict=True):
        last = hg.Trainer(problem=problem, estimator=estimator, optimizer=LBFGS, outer_steps=15).fit().last
        axis.plot(last.hparams["l2"], last.outer_loss, f"k{marker}", fillstyle="none", markersize=9, label=name)
    axis.set(xscale="log", xlabel="λ", ylabel="loss", title="from λ = 1, split of seed 3")
    axis.legend(fontsize="small")
    draw("ridge", figure)


if __name__ == "__main__":
    main()
