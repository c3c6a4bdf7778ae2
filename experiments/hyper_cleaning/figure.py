"""The figure of README.md, from numbers.json: python -m experiments.hyper_cleaning.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw test accuracy and F1 of each estimator against CPU time, and accuracy against gradients and products."""
    found = load("hyper_cleaning")["0"]
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for name, history in found["runs"].items():
        share = found["batch"] if "mini-batches" in name else 1
        passes = [share * sum(spent) for spent in zip(history["gradients"], history["products"], strict=True)]
        axes[0].semilogx(history["cpu"], history["test"], ".-", label=name)
        axes[1].semilogx(passes, history["test"], ".-")
        axes[2].semilogx(history["cpu"][1:], history["f1"][1:], ".-")
    for axis in axes[:2]:
        for name, style in (("oracle", "--"), ("baseline", ":"), ("dev alone", "-.")):
            axis.axhline(found["references"][name]["test"], color="black", linestyle=style, linewidth=1, label=name)
        axis.set_ylabel("test accuracy")
    axes[0].set_xlabel("CPU seconds")
    axes[1].set_xlabel("gradients and Hessian products, of all of train")
    axes[2].set(xlabel="CPU seconds", ylabel="F1 of finding the wrong labels")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    draw("hyper_cleaning", figure)


if __name__ == "__main__":
    main()
