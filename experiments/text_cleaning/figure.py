"""The figure of README.md, from numbers.json: python -m experiments.text_cleaning.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load

COLORS = {"ours": "C0", "K-FAC": "C1"}


def main() -> None:
    """Draw how the weights of right and wrong labels are spread, and the test accuracy of each row."""
    found = load("text_cleaning")
    first = next(iter(found.values()))
    groups = {
        word: [w for w, right in zip(first["weights"], first["is_right"], strict=True) if right == is_right]
        for word, is_right in (("right", True), ("wrong", False))
    }
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    left.hist(list(groups.values()), bins=20, range=(0, 1), label=[f"{len(ws)} {word}" for word, ws in groups.items()])
    left.set(xlabel="weight of a question", ylabel="questions")
    left.legend(title="weak label")
    for place, name in enumerate(reversed(first["rows"])):
        tests = [seed["rows"][name]["test"] for seed in found.values()]
        right.plot(tests, [place] * len(tests), "o", color=COLORS.get(name.split(",")[0], "black"))
    right.set_yticks(range(len(first["rows"])), list(reversed(first["rows"])))
    right.set_xlabel("test accuracy, on each seed")
    right.grid(axis="x", alpha=0.3)
    draw("text_cleaning", figure)


if __name__ == "__main__":
    main()
