"""The figure of README.md: python -m experiments.leave_one_out.figure."""

import torch
from matplotlib.figure import Figure

import hypergrad as hg
from experiments.leave_one_out.table import Logistic
from experiments.numbers import draw


def main() -> None:
    """Draw the change of each held-out logit by series of order 1 and 2 against that by refits, penalty 1."""
    torch.set_default_dtype(torch.float64)
    problem = Logistic.cancer(1.0)
    ones = torch.ones(len(problem.y))
    w0 = problem.fit(ones, torch.zeros(problem.X.shape[1]))
    truth = torch.linalg.vecdot(problem.X, problem.refits(w0) - w0)
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axis = figure.subplots()
    for order in (1, 2):
        found = hg.InfinitesimalJackknife(order=order).at(problem.loss, w0, ones).leave_out()
        axis.plot(truth, torch.linalg.vecdot(problem.X, found - w0), ".", label=f"order {order}")
    axis.axline((0, 0), slope=1, color="black", linewidth=1)
    axis.set(xlabel="change of the held-out logit by a refit", ylabel="by the series")
    axis.legend()
    draw("leave_one_out", figure)


if __name__ == "__main__":
    main()
