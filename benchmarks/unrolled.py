"""One hypergradient through T steps of gradient descent, next to what one would write by hand.

python -m benchmarks.unrolled
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.measure import THREADS, Work, compare
from benchmarks.problem.softmax import Digits

LR = 0.5


TAPES: dict[str, hg.Tape] = {
    "Graph": hg.Graph(),
    "Store": hg.Store(),
    "Checkpoint": hg.Checkpoint(),
    "Reversible": hg.Reversible(),
}


def make(num_steps: int, with_momentum: bool, name: str) -> Work:
    """The contestant of a name."""
    problem = Digits()
    hparams = problem.init_hparams()
    if name in TAPES:
        solver = hg.Momentum(lr=LR / 10) if with_momentum else hg.GradientDescent(lr=LR)
        estimator = hg.Unrolled(solver=solver, tape=TAPES[name], inner_steps=num_steps)
        return lambda: estimator.estimate(problem, hparams, problem.init_params()).grad["l2_W"]
    by_name = {"plain training": plain_training, "by hand, create_graph": by_hand}
    return partial(by_name[name], problem, hparams["l2_W"], num_steps)


def plain_training(problem: Digits, l2: Tensor, num_steps: int) -> Tensor:
    """The same steps without a hypergradient."""
    W = torch.zeros(64, 10, requires_grad=True)
    for _ in range(num_steps):
        loss = cross_entropy(problem.X @ W, problem.y) + (l2 * W * W).sum() / 2
        (g,) = torch.autograd.grad(loss, W)
        with torch.no_grad():
            W -= LR * g
    return W.detach()


def by_hand(problem: Digits, l2: Tensor, num_steps: int) -> Tensor:
    """The shortest create_graph loop anyone would write."""
    W, l2 = torch.zeros(64, 10, requires_grad=True), l2.detach().requires_grad_()
    for _ in range(num_steps):
        loss = cross_entropy(problem.X @ W, problem.y) + (l2 * W * W).sum() / 2
        (g,) = torch.autograd.grad(loss, W, create_graph=True)
        W = W - LR * g
    return torch.autograd.grad(cross_entropy(problem.X_dev @ W, problem.y_dev), l2)[0]


def main() -> None:
    """Print one table per number of steps."""
    torch.set_num_threads(THREADS)
    torch.set_default_dtype(torch.float64)
    what = "unrolled hypergradient, softmax regression on digits, 640 penalties"
    names = ["by hand, create_graph", "plain training", "Graph", "Store", "Checkpoint"]
    for num_steps, repeats in ((100, 21), (1000, 7)):
        compare(
            f"{what}, T = {num_steps}",
            partial(make, num_steps, False),
            names,
            reference=names[0],
            truth=names[0],
            unchecked=("plain training",),
            repeats=repeats,
        )
    compare(
        f"{what}, momentum, T = 1000",
        partial(make, 1000, True),
        ["Store", "Graph", "Checkpoint", "Reversible"],
        reference="Store",
        truth="Store",
        repeats=7,
    )


if __name__ == "__main__":
    main()
