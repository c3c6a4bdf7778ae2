"""The figure of README.md, from numbers.json: python -m experiments.logistic_l2.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw the dev and test loss of the first split against the gradients spent."""
    runs = [run for run in load("logistic_l2")["runs"] if run["seed"] == 0 and run["method"] != "L-BFGS-B"]
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    for axis, part in zip(figure.subplots(1, 2), ("dev", "test"), strict=True):
        for index, per in enumerate(("all", "feature", "weight")):
            for run in (run for run in runs if run["per"] == per):
                spent = [row["inner_steps"] + 2 * row["products"] for row in run["path"]]
                style = "-" if run["method"] == "tightening" else ":"
                label = (
                    f"one per {per}, {run['method']} tolerance" if per != "all" else f"one, {run['method']} tolerance"
                )
                axis.semilogx(spent, [row[part] for row in run["path"]], style, color=f"C{index}", label=label)
        axis.set(xlabel="inner steps + 2 × Hessian products", ylabel=f"{part} loss")
        axis.legend(fontsize="small")
    draw("logistic_l2", figure)


if __name__ == "__main__":
    main()
