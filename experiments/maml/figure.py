"""The figure of README.md, from numbers.json: python -m experiments.maml.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load

BINS = 50


def main() -> None:
    """Draw what is learned on the waves, what adaptation makes of it, and the accuracy on held-out classes."""
    numbers = load("maml")
    figure = Figure(figsize=(15, 3.6), layout="constrained")
    learning, adapting, *images = figure.subplots(1, 4)
    waves = numbers["sine waves"]
    for color, name in enumerate(("MAML", "first-order MAML")):
        for seed, found in enumerate(waves[name]):
            steps = [BINS * (k + 0.5) for k in range(len(found["dev"]))]
            learning.plot(steps, found["dev"], f"C{color}", alpha=0.7, label=None if seed else name)
    learning.set(xlabel="outer step", ylabel="query loss, means of 50 steps", title="sine waves", yscale="log")
    learning.legend(fontsize="small")
    for color, name in enumerate(("MAML", "first-order MAML", "random start")):
        for seed, found in enumerate(waves[name]):
            losses = [found["test_loss_before"], found["after 1"], found["after 10"]]
            adapting.plot(["before", "1 step", "10 steps"], losses, f"C{color}o-", label=None if seed else name)
    adapting.set(ylabel="query loss, held-out waves", title="adaptation", yscale="log")
    adapting.legend(fontsize="small")
    for axes, data in zip(images, ("digits", "Fashion-MNIST"), strict=True):
        for color, (shots, marker) in enumerate(((1, "o"), (5, "s"))):
            for position, found in enumerate(numbers[f"{data}, {shots} of each class"].values()):
                accuracy = [row["test_accuracy"] for row in found]
                where = [position + 0.2 * color] * len(accuracy)
                axes.plot(accuracy, where, f"C{color}{marker}", label=None if position else f"{shots} of each class")
        methods = list(numbers[f"{data}, 5 of each class"])
        labels = methods if data == "digits" else [""] * len(methods)
        axes.set(xlabel="accuracy, held-out classes", title=data, yticks=range(len(methods)), yticklabels=labels)
    images[0].legend(fontsize="small")
    draw("maml", figure)


if __name__ == "__main__":
    main()
