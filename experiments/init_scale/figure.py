"""The figure of README.md, from numbers.json: python -m experiments.init_scale.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load

WIDTHS = (784, 50, 50, 50)


def main() -> None:
    """Draw the scales of the weights over the outer steps, and the dev loss over the scale of the first layer alone."""
    numbers = load("init_scale")
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(2, len(numbers), sharex="row", sharey="row")
    for (name, found), above, below in zip(numbers.items(), *axes, strict=True):
        for run in found["runs"]:
            path = np.array(run["path"])[:, ::2] * np.sqrt(WIDTHS)
            for layer in range(4):
                above.semilogy(path[:, layer], color=f"C{layer}", alpha=0.7)
        above.axhline(1, color="black", linestyle="--", linewidth=1)
        above.set(title=name, xlabel="outer step")
        factors = np.array([float(factor) for factor in found["slice"]])
        rows = list(found["slice"].values())
        mean, spread = (np.array([row[key] for row in rows]) for key in ("dev_loss", "spread"))
        below.plot(factors, mean, "o-")
        below.fill_between(factors, mean - spread, mean + spread, alpha=0.2)
        ends = [run["path"][-1][0] * 28 for run in found["runs"]]
        for end in ends:
            below.axvline(end, color="C0", linewidth=1, alpha=0.7)
        below.axvline(1, color="black", linestyle="--", linewidth=1)
        below.axvline(28 / found["size"], color="black", linestyle=":", linewidth=1)
        below.set_xscale("log", base=2)
        below.set_xlabel("scale of the first layer × √784")
    for layer in range(4):
        axes[0, 0].plot([], color=f"C{layer}", label=f"weights of layer {layer + 1}")
    axes[0, 0].legend(fontsize="small")
    axes[0, 0].set_ylabel("scale × √inputs")
    axes[1, 0].set_ylabel("dev loss, mean and deviation of 5 draws")
    draw("init_scale", figure)


if __name__ == "__main__":
    main()
