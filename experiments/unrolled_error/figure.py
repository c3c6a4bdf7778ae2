"""The figure of README.md, from numbers.json: python -m experiments.unrolled_error.figure."""

from matplotlib.figure import Figure

from experiments.numbers import draw, load


def main() -> None:
    """Draw the errors against the steps, the condition number and the damping."""
    numbers = load("unrolled_error")
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    steps, conditions, dampings = figure.subplots(1, 3)
    for index, found in enumerate(numbers["decays"]):
        num_steps, unrolled, implicit, *_ = zip(*found["rows"], strict=True)
        label = f"λ = {found['l2']:g}, κ = {found['condition']:.3g}"
        steps.loglog(num_steps, unrolled, "-", color=f"C{index}", label=f"unrolled, {label}")
        steps.loglog(num_steps, implicit, "--", color=f"C{index}", label=f"implicit, {label}")
        bound = [unrolled[0] * t * found["rate"] ** (t - 1) for t in num_steps]
        steps.loglog(num_steps, bound, ":", color=f"C{index}", label="T (1 − ρμ)^(T − 1)" if index == 0 else None)
    steps.set(xlabel="inner steps T", ylabel="relative error against the closed form", ylim=(1e-14, 10))
    kappa = [row["condition"] for row in numbers["solves"]]
    conditions.loglog(kappa, [row["error"] for row in numbers["solves"]], "o-", label="true error")
    conditions.loglog(kappa, [row["bar"] for row in numbers["solves"]], "s--", label="its estimate")
    conditions.set(xlabel="condition number κ, CG to 1e-10", ylabel="relative error")
    for name, curve in numbers["damping"].items():
        style = "--" if ", 20 " in name else "-"
        dampings.loglog([row["damping"] for row in curve], [row["error"] for row in curve], style, label=name)
    dampings.set(xlabel="damping δ", ylabel="relative error")
    for axis in (steps, conditions, dampings):
        axis.legend(fontsize="small")
    draw("unrolled_error", figure)


if __name__ == "__main__":
    main()
