"""Softmax regression on digits with 1, 10 or 64 penalties, and who tunes them: every one from the same start."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.digits import by_hand
from experiments.digits.by_hand import Point
from hypergrad.callback.base import Callback, Record

PER = {1: "all", 10: "output", 64: "feature"}
"""What each number of penalties is one per: all weights, class, pixel."""
INIT, TOL, STEPS, TRIALS = 1e-3, 1e-6, 50, 100
RATES = (0.1, 0.3)


def problem(seed: int, penalties: int) -> hg.Supervised:
    """450 train, 449 dev and 898 test images; 640 weights, which start at 0, and no intercept."""
    data, model = hg.digits(seed=seed, test=0.5), torch.nn.Linear(64, 10, bias=False)
    torch.nn.init.zeros_(model.weight)
    return hg.Supervised(
        model=model,
        loss=cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=INIT, per=PER[penalties])},
    )


ESTIMATOR = hg.Implicit(
    solver=hg.Newton(), linsolve=hg.CG(tol=TOL, max_iter=1000), inner_tol=TOL, inner_steps=500, error_bar=False
)
ADAM = partial(torch.optim.Adam, lr=0.1)


class Curve(Callback):
    """Keeps the losses of every record, with the seconds since it was made."""

    def __init__(self) -> None:
        self.begin, self.points = time.perf_counter(), list[Point]()

    def on_step(self, record: Record) -> None:
        seconds = time.perf_counter() - self.begin
        self.points.append(Point(seconds, record.outer_loss, record.metrics["test_loss"]))


def ours(optimizer: Callable, steps: int, seed: int, penalties: int) -> list[Point]:
    """Hypergradients by this library."""
    curve = Curve()
    hg.fit(problem(seed, penalties), ESTIMATOR, optimizer, steps, progress=False, callbacks=[curve])
    return curve.points


def searched(method: Callable[..., hg.Search], trials: int, seed: int, penalties: int) -> list[Point]:
    """A search without gradients, on the trainings of `ours`."""
    curve = Curve()
    hg.search(problem(seed, penalties), ESTIMATOR, method(seed=seed), hg.Budget(trials=trials), [curve])
    return curve.points


def handwritten(lr: float, seed: int, penalties: int) -> list[Point]:
    """The reference."""
    data = hg.digits(seed=seed, test=0.5)
    return by_hand.tune(list(data), PER[penalties], init=INIT, steps=STEPS, lr=lr, tol=TOL)
