"""The figure of README.md, from numbers.json: python -m experiments.reweight.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load

PARTS = {"test": "all ten classes", "rare": "the rarest three", "common": "the most common three"}


def main() -> None:
    """Draw test accuracy by rows, and the weights of the classes from common to rare."""
    numbers = list(load("reweight").values())
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = list(numbers[0]["rows"])
    for index, (key, label) in enumerate(PARTS.items()):
        values = np.array([[found["rows"][name][key] for name in names] for found in numbers])
        at = np.arange(len(names)) + 0.2 * (index - 1)
        left.errorbar(values.mean(0), at, xerr=values.std(0, ddof=1), fmt="o", color=f"C{index}", label=label)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set_xlabel(f"test accuracy, mean and deviation over {len(numbers)} draws")
    left.legend(fontsize="small")
    styles = {"inverse": ("k--", "inverse frequency"), "classes": ("C3.-", "learned, 10 classes")}
    styles["examples"] = ("C4.-", "learned, each example (mean of a class)")
    for name, (style, label) in styles.items():
        weights = np.array([found["weights"][name] for found in numbers])
        shares = np.log(weights) - np.log(weights).mean(1, keepdims=True)
        (line,) = right.plot(range(10), np.exp(shares.mean(0)), style, label=label)
        low, high = np.exp(shares.min(0)), np.exp(shares.max(0))
        right.fill_between(range(10), low, high, color=line.get_color(), alpha=0.15)
    right.set(yscale="log", xlabel="class, from the most common to the rarest", ylabel="weight over its geometric mean")
    right.legend(fontsize="small")
    draw("reweight", figure)


if __name__ == "__main__":
    main()
