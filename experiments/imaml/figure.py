"""The figure of README.md, from numbers.json: python -m experiments.imaml.figure."""

from matplotlib.figure import Figure

from experiments.imaml.table import STEPS
from experiments.numbers import draw, load


def main() -> None:
    """Draw memory over the number of inner steps, and learning."""
    numbers = load("imaml")
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    holding, *learning = figure.subplots(1, 1 + len(numbers["learned"]))
    for name, megabytes in numbers["memory"].items():
        holding.loglog(STEPS, megabytes, "o-", label=name)
    holding.set(xlabel="inner steps", ylabel="tensors that live at a time [MB]")
    holding.legend(fontsize="small")
    for axis, (name, rows) in zip(learning, numbers["learned"].items(), strict=True):
        for seed, found in enumerate(rows["implicit MAML"]):
            axis.plot(found["dev"], f"C{seed}", label=f"seed {seed}")
        axis.set(xlabel="outer step", ylabel="query loss at the optimum", title=name)
        axis.legend(fontsize="small")
    draw("imaml", figure)


if __name__ == "__main__":
    main()
