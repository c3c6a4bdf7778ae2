"""The bilevel loop: what happens in an outer step."""

from matplotlib.figure import Figure

from scripts.figures.style import BLUE, GREEN, GREY, ORANGE, RED, arrow, box, diagram

_LEFT, _RIGHT, _TOP, _BOTTOM = 1.02, 3.18, 1.95, 0.42
_BOX = (1.86, 0.66)


def draw() -> Figure:
    """Four boxes in a circle: train, judge, differentiate, move."""
    figure, axis = diagram(2.65)
    box(axis, _LEFT, _TOP, *_BOX, ("train", "w ← w − lr ∇g(w, λ)"), BLUE)
    box(axis, _RIGHT, _TOP, *_BOX, ("judge on dev", "f(w*(λ), λ)"), ORANGE)
    box(axis, _RIGHT, _BOTTOM, *_BOX, ("differentiate", "dF/dλ = ∂f/∂λ − (∂φ/∂λ)ᵀ v"), RED)
    box(axis, _LEFT, _BOTTOM, *_BOX, ("move", "λ ← λ − η dF/dλ"), GREEN)
    half_x, half_y = _BOX[0] / 2, _BOX[1] / 2
    arrow(axis, (_LEFT - 0.3, _TOP + half_y), (_LEFT + 0.3, _TOP + half_y), bend=-0.8, color=BLUE)
    arrow(axis, (_LEFT + half_x, _TOP), (_RIGHT - half_x, _TOP))
    arrow(axis, (_RIGHT, _TOP - half_y), (_RIGHT, _BOTTOM + half_y))
    arrow(axis, (_RIGHT - half_x, _BOTTOM), (_LEFT + half_x, _BOTTOM))
    arrow(axis, (_LEFT, _BOTTOM + half_y), (_LEFT, _TOP - half_y))
    axis.text(_LEFT + 0.36, _TOP + half_y + 0.16, "inner_steps times", color=BLUE, va="center", size=9)
    for x, y, name in [
        (_LEFT + 0.47, _TOP - half_y - 0.14, "solver"),
        (_RIGHT - 0.47, _TOP - half_y - 0.14, "problem"),
        (_RIGHT - 0.47, _BOTTOM + half_y + 0.14, "estimator"),
        (_LEFT + 0.47, _BOTTOM + half_y + 0.14, "optimizer"),
    ]:
        axis.text(x, y, name, ha="center", va="center", family="monospace", size=9, color=GREY)
    return figure
