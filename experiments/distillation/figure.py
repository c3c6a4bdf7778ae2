"""The figure of README.md, from numbers.json: python -m experiments.distillation.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw the ten learned images above ten real ones, and test accuracy over the outer steps."""
    numbers = load("distillation")
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False)
    axes = above.subplots(2, 10)
    for row, (name, images) in zip(axes, numbers["0"]["images"].items(), strict=True):
        row[0].set_title(name, loc="left", fontsize="small")
        for axis, image in zip(row, np.array(images), strict=True):
            axis.imshow(image.reshape(28, 28), cmap="gray")
            axis.set_axis_off()
    axis = below.subplots()
    for found in numbers.values():
        axis.plot(found["accuracy"], color="C0", alpha=0.6)
    for name, style in (("all of train", "--"), ("class means", "-."), ("random real images", ":")):
        accuracy = np.mean([found["rows"][name]["test_accuracy"] for found in numbers.values()])
        axis.axhline(accuracy, color="black", linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="outer step", ylabel="test accuracy, five splits")
    axis.legend(fontsize="small")
    draw("distillation", figure)


if __name__ == "__main__":
    main()
