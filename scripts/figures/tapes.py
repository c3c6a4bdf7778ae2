"""What each tape keeps of the way through training, and how it comes back."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.figures.style import BLUE, GREY, ORANGE, WIDTH, arrow, diagram

_STEPS = 9
_ROWS = [
    ("graph", range(_STEPS + 1), range(_STEPS), "all states and all activations"),
    ("store", range(_STEPS + 1), (), "all states; activations of one step"),
    ("checkpoint", (0, 3, 6, 9), (), "√T states at a time; the others are trained again"),
    ("reversible", (_STEPS,), (), "the last state; steps are run backwards, bit for bit"),
]
_TOP, _PITCH = 3.3, 0.88


def draw() -> Figure:
    """A row for each tape."""
    figure, axis = diagram(4.0)
    axis.text(0.2, _TOP + 0.52, "w$_0$", ha="center", color=GREY)
    axis.text(WIDTH - 0.2, _TOP + 0.52, "w$_T$", ha="center", color=GREY)
    for number, row in enumerate(_ROWS):
        _row(axis, _TOP - number * _PITCH, *row)
    _legend(axis)
    return figure


def _row(axis: Axes, y: float, name: str, states: object, activations: object, words: str) -> None:
    places = [0.2 + (WIDTH - 0.4) * t / _STEPS for t in range(_STEPS + 1)]
    axis.plot(places, [y] * len(places), color=GREY, linewidth=1, zorder=1)
    for t, x in enumerate(places):
        kept = t in states  # pyright: ignore[reportOperatorIssue]
        axis.plot(x, y, "o", color=BLUE if kept else "white", markeredgecolor=BLUE, markersize=8, zorder=3)
        if t in activations:  # pyright: ignore[reportOperatorIssue]
            axis.plot((x + places[t + 1]) / 2, y, "s", color=ORANGE, markersize=6.5, zorder=2)
    axis.text(0.1, y + 0.3, name, family="monospace", weight="bold", va="center")
    axis.text(0.1, y - 0.24, words, va="center", size=9.5)
    if name == "checkpoint":
        arrow(axis, (places[6], y + 0.08), (places[9] - 0.1, y + 0.08), bend=-0.35, color=ORANGE)
    if name == "reversible":
        for a, b in zip(places[:0:-1], places[-2::-1], strict=True):
            arrow(axis, (a, y + 0.08), (b + 0.05, y + 0.09), bend=0.35, color=ORANGE, mutation_scale=7, linewidth=1)


def _legend(axis: Axes) -> None:
    y = 0.1
    marks = [(0.2, "o", BLUE, "state kept"), (1.4, "o", "white", "not kept"), (2.5, "s", ORANGE, "activations kept")]
    for x, mark, colour, words in marks:
        axis.plot(x, y, mark, color=colour, markeredgecolor=ORANGE if mark == "s" else BLUE, markersize=7)
        axis.text(x + 0.12, y, words, va="center", size=9)
