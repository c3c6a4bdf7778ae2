"""The figure of README.md, from numbers.json: python -m experiments.learning_rate.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load
from hypergrad.plot.panel import publication


@publication()
def main() -> None:
    """Draw the loss against the step size, and where descent went."""
    curves = load("learning_rate")["curves"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for index, (num_steps, curve) in enumerate(curves.items()):
        axis.plot(curve["rates"], curve["losses"], color=f"C{index}", label=f"T = {num_steps}")
        for path, mark in zip(curve["paths"].values(), (".", "o"), strict=True):
            rates, losses = zip(*path, strict=True)
            axis.plot(rates, losses, mark, color=f"C{index}", markersize=7 if mark == "o" else 4, fillstyle="none")
    lowest = min(min(curve["losses"]) for curve in curves.values())
    axis.set(xlabel="step size ρ", ylabel="training loss after T steps", ylim=(0.99 * lowest, 1.02))
    axis.legend(title="dots: 100 steps of 0.01 from ρ = 0.05\ncircles: 20 of L-BFGS-B")
    draw("learning_rate", figure)


if __name__ == "__main__":
    main()
