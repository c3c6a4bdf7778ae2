"""The figure of README.md, from numbers.json: python -m experiments.logistic_l2.figure."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.numbers import draw, load

SCHEDULES = ("fixed", "exponential", "quadratic", "cubic")
TITLES = {"feature": "one penalty per pixel (64), seed 0", "weight": "one penalty per weight (640), seed 0"}


def draw_distances(axis: Axes, numbers: dict) -> None:
    """How far one penalty is from that of brute force, on each split."""
    for color, name in enumerate(SCHEDULES):
        for i, (rows, truth) in enumerate(zip(numbers["splits"].values(), numbers["truths"], strict=True)):
            path = rows["all"][name]["path"]
            distances = [abs(x - truth) for x in path["log_l2"]]
            axis.loglog(path["spent"], distances, color=f"C{color}", alpha=0.8, label=name if i == 0 else None)
    axis.axhline(1e-3, color="black", linestyle=":", linewidth=1)
    axis.set(title="one penalty, three splits", ylabel="|log λ − that of brute force|")


def draw_losses(axis: Axes, rows: dict) -> None:
    """Dev and test loss on the way."""
    for color, name in enumerate(SCHEDULES):
        path = rows[name]["path"]
        axis.semilogx(path["spent"], path["dev"], color=f"C{color}", label=name)
        axis.semilogx(path["spent"], path["test"], "--", color=f"C{color}")
    axis.set(ylabel="dev loss, and test loss dashed")


def main() -> None:
    """Draw what the tolerance schedules reach against what they spend."""
    numbers = load("logistic_l2")
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    first, *others = figure.subplots(1, 3)
    draw_distances(first, numbers)
    for axis, (per, title) in zip(others, TITLES.items(), strict=True):
        draw_losses(axis, numbers["splits"]["0"][per])
        axis.set(title=title)
    for axis in (first, *others):
        axis.set(xlabel="gradients + 2 × Hessian products")
        axis.legend(fontsize="small")
    draw("logistic_l2", figure)


if __name__ == "__main__":
    main()
