"""The figure of README.md, from numbers.json: python -m experiments.single_loop.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load
from experiments.single_loop.contestants import ENTRANTS
from experiments.single_loop.tune import SETTINGS

_FLOOR = {"quadratic": 1e-13, "logistic": 1e-5}
"""What rounding leaves of the gap, and what is known of F*."""


def main() -> None:
    """Draw the gap against oracles and against CPU seconds, and ‖∇F‖² against oracles, on each problem."""
    numbers = load("single_loop")
    figure = Figure(figsize=(15, 8), layout="constrained")
    for axes, kind in zip(figure.subplots(2, 3), SETTINGS, strict=True):
        for name in (name for name in ENTRANTS if name in numbers[kind]):
            path, i = numbers[kind][name], list(ENTRANTS).index(name)
            style = {"color": f"C{i % 10}", "linestyle": "--" if i >= 10 else "-", "linewidth": 1.2}
            gap = [max(x, _FLOOR[kind]) for x in path["gap"]]
            axes[0].semilogy(path["epochs"], gap, label=name, **style)
            axes[1].loglog([max(x, 1e-3) for x in path["seconds"]], gap, **style)
            axes[2].semilogy(path["epochs"], [max(x, _FLOOR[kind] ** 2) for x in path["grad"]], **style)
        for axis in (axes[0], axes[2]):
            axis.set_xlabel("oracles / (3n + m)")
        axes[0].set(ylabel=f"{kind}: F(λ) − F*")
        axes[1].set(xlabel="CPU seconds", ylabel="F(λ) − F*")
        axes[2].set(ylabel="‖∇F‖²")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    draw("single_loop", figure)


if __name__ == "__main__":
    main()
