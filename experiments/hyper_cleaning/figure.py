"""The figure of README.md, from numbers.json: python -m experiments.hyper_cleaning.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw test accuracy and F1 of each estimator against its time."""
    found = load("hyper_cleaning")["0"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, history in found["runs"].items():
        seconds = [row["run/seconds"] for row in history]
        axes[0].plot(seconds, [row["metric/test_accuracy"] for row in history], ".-", label=name)
        axes[1].plot(seconds, [row["metric/f1"] for row in history], ".-", label=name)
    for name, style in (("oracle", "--"), ("baseline", ":"), ("dev alone", "-.")):
        axes[0].axhline(found["references"][name]["test"], color="black", linestyle=style, linewidth=1, label=name)
    axes[0].set(xlabel="seconds", ylabel="test accuracy")
    axes[1].set(xlabel="seconds", ylabel="F1 of finding the wrong labels")
    axes[0].legend(fontsize="small")
    draw("hyper_cleaning", figure)


if __name__ == "__main__":
    main()
