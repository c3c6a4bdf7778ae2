"""The figure of README.md, from numbers.json: python -m experiments.mean_field.figure."""

import numpy as np
from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw test images, clean, noisy and denoised."""
    pictures = load("mean_field")["pictures"]
    count = len(pictures["clean"])
    figure = Figure(figsize=(count, 1.1 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), count)
    for line, (name, images) in zip(axes, pictures.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(np.reshape(image, (8, 8)), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_title(name, loc="left", fontsize="small")
    draw("mean_field", figure)


if __name__ == "__main__":
    main()
