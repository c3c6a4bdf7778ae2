"""The figure of README.md, from results.json.

python -m experiments.digits.figure
"""

import json

from matplotlib.figure import Figure

from experiments.digits.table import HERE


def main() -> None:
    """Draw dev and test loss of the first seed against seconds, a panel for each number of penalties."""
    results = json.loads((HERE / "results.json").read_text())
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    colours = {
        name: f"C{i}" for i, name in enumerate(dict.fromkeys(name for runs in results.values() for name in runs))
    }
    for axis, (penalties, runs) in zip(axes, results.items(), strict=True):
        for name, curves in runs.items():
            seconds, dev, test = zip(*curves[0], strict=True)
            axis.plot(seconds, dev, color=colours[name], label=name)
            axis.plot(seconds, test, "--", color=colours[name], linewidth=1)
        axis.set(
            title="1 penalty" if penalties == "1" else f"{penalties} penalties",
            xlabel="CPU time [s]",
            xscale="log",
            ylim=(0.04, 0.3),
        )
    axes[0].set_ylabel("cross-entropy: dev (solid), test (dashed)")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(HERE / "figure.png", dpi=80)


if __name__ == "__main__":
    main()
