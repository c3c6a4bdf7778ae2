"""The figure of README.md, from numbers.json: python -m experiments.augmentation.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw train images as they are and as training sees them, and the dev loss over the outer steps."""
    numbers = load("augmentation")
    pictures = {
        name: [np.frombuffer(bytes.fromhex(image), np.uint8) for image in images]
        for name, images in numbers["pictures"].items()
    }
    figure = Figure(figsize=(9, 11), layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[len(pictures), 4])
    for axis, (name, images) in zip(above.subplots(len(pictures)), pictures.items(), strict=True):
        axis.imshow(np.hstack([image.reshape(28, 28) for image in images]), cmap="gray")
        axis.set_title(name, loc="left", fontsize="small")
        axis.set_axis_off()
    axis = below.subplots()
    histories = {name: row["history"] for name, row in numbers["rows"]["0"].items()}
    learned = [name for name, losses in histories.items() if losses and "TPE" not in name]
    for index, name in enumerate(learned):
        for rows in numbers["rows"].values():
            label = name if rows is numbers["rows"]["0"] else None
            axis.plot(rows[name]["history"], color=f"C{index}", alpha=0.7, linewidth=1, label=label)
    axis.set(xlabel="outer step, each of 50 inner steps from where the last had ended", ylabel="dev loss, three splits")
    axis.legend(fontsize="small", loc="upper center")
    draw("augmentation", figure)


if __name__ == "__main__":
    main()
