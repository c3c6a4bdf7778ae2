"""The figure of README.md, from numbers.json: python -m experiments.savi.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw the negative ELBO of test images against the steps of inference, for each start and decoder."""
    runs = list(load("savi").values())
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axis, start in zip(figure.subplots(1, 2), ("encoder", "prior"), strict=True):
        for index, training in enumerate(("VAE", "VAE, longer", "SVI", "SA-VAE")):
            curves = [run[training].get(f"{start} test") for run in runs]
            if None in curves:
                continue
            for curve in curves:
                label = training if curve is curves[0] else None
                axis.plot(range(len(curve)), curve.values(), "o-", color=f"C{index}", alpha=0.7, label=label)
                axis.set_xticks(range(len(curve)), list(curve))
        axis.set(title=f"from the {start}", xlabel="steps on each posterior")
        axis.set_ylabel("negative ELBO of test images, nats")
        axis.legend(title="networks of", fontsize="small")
    draw("savi", figure)


if __name__ == "__main__":
    main()
