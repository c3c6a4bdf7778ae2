"""The figure of README.md, from numbers.json: python -m experiments.optnet.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw test signals, the learned matrix, and the errors on the way there."""
    numbers = load("optnet")
    figure = Figure(figsize=(14, 4), layout="constrained")
    signal, matrix, path = figure.subplots(1, 3)
    for name, style in (("noisy", "."), ("clean", "k-"), ("total variation", "C0-"), ("learned", "C1-")):
        signal.plot(numbers[name][0], style, label=name, alpha=0.8)
    signal.legend()
    image = matrix.imshow(numbers["filters"], cmap="RdBu", vmin=-1, vmax=1)
    matrix.set(title="D, learned", xlabel="pixel")
    figure.colorbar(image, ax=matrix)
    dev, test = zip(*numbers["path"], strict=True)
    path.plot(dev, label="dev")
    path.plot(test, label="test")
    path.set(xlabel="outer step", ylabel="mean squared error")
    path.legend()
    draw("optnet", figure)


if __name__ == "__main__":
    main()
