"""The figure of README.md, from numbers.json: python -m experiments.savi.figure."""

import statistics

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw the negative ELBO of test images against the steps of inference, for each decoder and start."""
    runs = list(load("savi").values())
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for index, training in enumerate(("VAE", "VAE, longer", "SVI", "SA-VAE")):
        for start, style in (("encoder", "o-"), ("prior", "o:")):
            curves = [run[training].get(f"{start} test") for run in runs]
            if None in curves:
                continue
            means = [statistics.mean(curve[steps] for curve in curves) for steps in curves[0]]
            axis.plot(
                range(len(means)), means, style, color=f"C{index}", label=f"decoder of {training}, from the {start}"
            )
            axis.set_xticks(range(len(means)), list(curves[0]))
    axis.set(xlabel="steps on each posterior", ylabel="negative ELBO of test images, nats", yscale="log")
    axis.legend(fontsize="small")
    draw("savi", figure)


if __name__ == "__main__":
    main()
