"""What the figures share: a size that is readable on a telephone, colours, boxes and arrows."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).parents[2] / "docs" / "img"
WIDTH = 4.2
"""Inches, which is 403 pixels on a screen."""
BLUE, ORANGE, GREEN, RED, GREY = "#2f5d9b", "#c8641b", "#3b7d4f", "#a83232", "#777777"

mpl.use("svg")
mpl.rcParams.update({
    "svg.hashsalt": "hypergrad",  # the same file at each drawing
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
})


def diagram(height: float) -> tuple[Figure, Axes]:
    """A figure without axes, whose units are inches."""
    figure = Figure(figsize=(WIDTH, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(0, height))
    axis.axis("off")
    return figure, axis


def box(axis: Axes, x: float, y: float, width: float, height: float, lines: tuple[str, str], colour: str) -> None:
    """A box around (x, y) with a title in bold and a line below it."""
    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            *(width, height),
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=f"{colour}18",
            edgecolor=colour,
            linewidth=1.4,
        )
    )
    title, formula = lines
    axis.text(x, y + 0.11, title, ha="center", va="center", color=colour, weight="bold")
    axis.text(x, y - 0.12, formula, ha="center", va="center", size=9.5)


def arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: float = 0, **style: object
) -> None:
    """An arrow, which turns aside by `bend` of its length."""
    look = {"color": GREY, "linewidth": 1.4, "zorder": 1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11} | style
    axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", connectionstyle=f"arc3,rad={bend}", **look))


def save(figure: Figure, name: str) -> Path:
    """Write a figure, the same bytes for the same figure."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, facecolor="white", metadata={"Date": None, "Creator": None})
    return path
