"""Models that normalise by the statistics of the batch, models that return their loss, and precisions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from problem_cases import (
    LOSSES,
    N,
    classes,
    compared,
    draw,
    each,
    found,
    network,
    supervised,
    unrolled,
)
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import flatten, leaves, vjp
from hypergrad.core.collectives import Traffic
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import InPrecision, epsilon_of, in_precision


def images(**settings: Any) -> hg.Supervised:
    """A convolution, whose statistics are those of pixels too."""
    layers = [
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 3, 1),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 3),
    ]
    torch.manual_seed(0)
    return normalized(nn.Sequential(*layers).double(), **settings)


def normalized(model: nn.Module | None = None, **settings: Any) -> hg.Supervised:
    model = model or network(3, inside=nn.Sequential(nn.BatchNorm1d(5), nn.Tanh(), nn.BatchNorm1d(5, affine=False)))
    return supervised(cross_entropy, classes(N, ignored=3), each, model=model, **settings)


def evaluated() -> list[float]:
    """Metrics of the trained model, whose running averages are those of one process, on this process alone."""
    problem = normalized(batch_size=5, test=(torch.ones(4, 4).double(), classes(4)))
    many = hg.DataParallel(problem)
    w, hp = problem.init_params(), problem.init_hparams()
    one, other = problem.metrics(w, hp), many.metrics(w, hp)
    return [abs(float(one[name]) - float(other[name])) for name in one]


def rounded(precision: str) -> dict[str, Any]:
    """A hypergradient in a coarse format inside the losses, whose sums over processes are not in it."""
    one = LOSSES["class weights"]().float()
    tied = hg.Tied(hg.DataParallel(LOSSES["ignored"]().float()), name="each", groups=3)
    many = in_precision(hg.DataParallel(one), precision)
    a, b = (flatten(found(p, unrolled()).grad) for p in (InPrecision(one, precision), many))
    batch, w, hp = many.inner_batch(0), many.init_params(), many.init_hparams()
    return {
        "outside": type(many).__name__,
        "epsilon": [epsilon_of(many), epsilon_of(in_precision(tied, precision))],
        "dtype": str(many.inner_loss(w, hp, batch).dtype),
        "error": ((a - b).norm() / a.norm()).item(),
        "judged by": type(many.exact.problem).__name__,  # pyright: ignore[reportAttributeAccessIssue]
    }


def traffic(layers: int) -> list[int]:
    """The all-reduces of a training step, of a gradient with its graph, and of a product with the Hessian."""
    inside = nn.Sequential(nn.Tanh(), *(nn.BatchNorm1d(5) for _ in range(layers)))
    problem = hg.DataParallel(normalized(network(3, inside=inside)))
    oracle = Oracle(problem, problem.init_hparams(), problem.inner_batch(0))
    w, step, linearized, product = leaves(problem.init_params()), Traffic(), Traffic(), Traffic()
    with torch.no_grad(), step.counting():
        oracle(w)
    with linearized.counting():
        _, grad = oracle(w)
    times = vjp(flatten(grad), w)
    with product.counting():
        times(flatten(w))
    return [each.calls for each in (step, linearized, product)]


class Returning(nn.Module):
    """A model that returns its loss, a mean over the targets that are not ignored."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.body = network(3, inside=nn.BatchNorm1d(5) if norm else None)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> Any:
        return {"loss": cross_entropy(self.body(x), labels)}


def returning_examples(n: int, *, ignored: int = 0) -> dict[str, Any]:
    return {"x": draw(n, 4, seed=n), "labels": classes(n, ignored=ignored)}


def returning(*, ignored: int = 0, norm: bool = False, **settings: Any) -> hg.Supervised:
    usual: dict[str, Any] = {"train": returning_examples(N, ignored=ignored), "dev": returning_examples(7)}
    effects = {"l2": hg.L2(init=0.3)}
    return hg.Supervised(model=Returning(norm), loss=None, hyperparameters=effects, **usual | settings)


PARITY: dict[str, Callable[[], list[float]]] = {
    "normalised": lambda: compared(partial(normalized, batch_size=5)),
    "normalised, Gauss–Newton": lambda: compared(
        normalized,
        hg.Implicit(
            solver=hg.Momentum(lr=0.05),
            product=hg.GaussNewton(),
            inner_steps=3,
            inner_tol=0,
            damping=2.0,
            error_bar=False,
        ),
    ),
    "normalised forward": lambda: compared(normalized, hg.Forward(solver=hg.Momentum(lr=0.05), inner_steps=3)),
    "normalised images": lambda: compared(images, unrolled()),
    "normalised, recomputed": lambda: compared(partial(images, batch_size=5, recompute=["2"]), unrolled()),
    "normalised, an empty part": lambda: compared(lambda: images(batch_size=1, dev_sample=1), unrolled()),
    "normalised, folds over ranks": lambda: compared(lambda: hg.k_fold(normalized(), 3), unrolled()),
    "normalised, returned": lambda: compared(partial(returning, norm=True)),
    "returned": lambda: compared(returning),
    "metrics": evaluated,
}
