"""The figure of README.md, from numbers.json: python -m experiments.imaml.figure."""

from matplotlib.figure import Figure

from experiments.imaml.table import STEPS
from experiments.numbers import draw, load


def main() -> None:
    """Draw memory over the number of inner steps, and learning."""
    numbers = load("imaml")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    holding, learning = figure.subplots(1, 2)
    for name, megabytes in numbers["memory"].items():
        holding.loglog(STEPS, megabytes, "o-", label=name)
    holding.set(xlabel="inner steps", ylabel="tensors that live at a time [MB]")
    holding.legend(fontsize="small")
    for seed, found in enumerate(numbers["learned"]["implicit MAML"]):
        learning.plot(found["dev"], label=f"seed {seed}")
    learning.set(xlabel="outer step", ylabel="query loss at the optimum", title="sine waves, fresh ones in each step")
    learning.legend(fontsize="small")
    draw("imaml", figure)


if __name__ == "__main__":
    main()
