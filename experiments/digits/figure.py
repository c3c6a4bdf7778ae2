"""The figure of README.md, from results.json.

python -m experiments.digits.figure
"""

import json

from matplotlib.figure import Figure

from experiments.digits.table import HERE
from hypergrad.plot.panel import look_of, publication


@publication()
def main() -> None:
    """Draw dev loss and, below it, test loss of the first seed against seconds, by the number of penalties."""
    results = json.loads((HERE / "results.json").read_text())
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, len(results), squeeze=False, sharey="row")
    names = list(dict.fromkeys(name for runs in results.values() for name in runs))
    for column, (penalties, runs) in enumerate(results.items()):
        for name, curves in runs.items():
            seconds, *losses = zip(*curves[0], strict=True)
            for axis, values in zip(axes[:, column], losses, strict=True):
                axis.plot(seconds, values, label=name, **look_of(names.index(name)))
        axes[0, column].set_title("1 penalty" if penalties == "1" else f"{penalties} penalties")
        axes[1, column].set_xlabel("CPU time [s]")
    for row, name in zip(axes, ("dev", "test"), strict=True):
        row[0].set(ylabel=f"{name} cross-entropy", ylim=(0.04, 0.3))
        for axis in row:
            axis.set_xscale("log")
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    figure.savefig(HERE / "figure.png", dpi=110)


if __name__ == "__main__":
    main()
