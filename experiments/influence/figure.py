"""The figure of README.md, from numbers.json: python -m experiments.influence.figure."""

from matplotlib.figure import Figure

from experiments.influence.cases import CASES
from experiments.influence.table import spread
from experiments.numbers import draw, load

SHOWN = ("unrolled", "CG", "EK-FAC", "kronfluence", "TRAK")
TITLES = {"early": "stopped after 30 steps", "end": "trained to the end"}
KINDS = {"same": "retrained from the same start, on the same batches", "other": "from another start, on other batches"}


def main() -> None:
    """Draw the score of each method on each network, early and at the end, with standard errors over dev examples."""
    found = load("influence")
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True, sharex=True)
    for row, (kind, of_runs) in enumerate(KINDS.items()):
        for column, (when, title) in enumerate(TITLES.items()):
            axis = axes[row, column]
            for k, name in enumerate(SHOWN):
                rows = {case: found.get(f"{case}, {when}", {}).get(name) for case in CASES}
                each = {place: spread(one[kind]) for place, one in enumerate(rows.values()) if one}
                means, errors = ([pair[i] for pair in each.values()] for i in range(2))
                axis.bar([place + (k - 2) * 0.16 for place in each], means, 0.16, yerr=errors, label=name, capsize=2)
            axis.set_title(f"{title}; {of_runs}", fontsize="small")
            axis.set_xticks(range(len(CASES)), [name.replace(", ", "\n") for name in CASES])
            axis.set_ylabel("LDS" if column == 0 else "")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN))
    draw("influence", figure)


if __name__ == "__main__":
    main()
