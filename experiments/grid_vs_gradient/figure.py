"""The figure of README.md, from numbers.json: python -m experiments.grid_vs_gradient.figure."""

import statistics

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw dev and test loss against the number of hyperparameters."""
    found = load("grid_vs_gradient")["found"]
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    for axis, part in zip(figure.subplots(1, 2), ("dev", "test"), strict=True):
        for index, method in enumerate(("grid", "random", "TPE", "gradient", "start")):
            runs = {int(d): splits for d, splits in found.items() if all(method in split for split in splits)}
            means = [statistics.mean(split[method][part] for split in splits) for splits in runs.values()]
            style = ":" if method == "start" else "o-"
            axis.plot(range(len(runs)), means, style, color=f"C{index}", markersize=4, label=method)
        axis.set_xticks(range(len(found)), list(found))
        axis.set(xlabel="hyperparameters", ylabel=f"{part} loss at the lowest dev loss, mean over the splits")
        axis.legend()
    draw("grid_vs_gradient", figure)


if __name__ == "__main__":
    main()
