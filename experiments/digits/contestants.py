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
"""What each number of penalties means: one for all weights, one per class, one per pixel."""
INIT, TOL, STEPS, TRIALS, GRID = 1e-3, 1e-6, 50, 100, 20
"""λ at the start, the inner tolerance of all, steps of Adam, trials of a search, points of a grid."""
ADAM = partial(torch.optim.Adam, lr=0.1)
PRODUCT = hg.Traced(precision="float64")
ESTIMATOR = hg.Implicit(
    solver=hg.Newton(product=PRODUCT),
    linsolve=hg.CG(tol=TOL, max_iter=2000),
    product=PRODUCT,
    inner_tol=TOL,
    error_bar=False,
)


class Watched(hg.Supervised):
    """Two thirds of dev to tune on, and a third to stop by."""

    def __init__(self, data: hg.Splits, **settings: object) -> None:
        size = len(data.dev.y) * 2 // 3
        super().__init__(train=data.train, dev=hg.Split(*(v[:size] for v in data.dev)), test=data.test, **settings)  # pyright: ignore
        self.watch = hg.Split(*(v[size:] for v in data.dev))

    def metrics(self, params: hg.Tensors, hparams: hg.Tensors) -> dict:
        watched = cross_entropy(self.watch.X @ params["weight"].T, self.watch.y)
        return super().metrics(params, hparams) | {"watch_loss": watched}


def problem(seed: int, penalties: int, *, watched: bool = False) -> hg.Supervised:
    """450 train, 449 dev and 898 test images; 640 weights, which start at 0, and no intercept."""
    data, model = hg.digits(seed=seed, test=0.5), torch.nn.Linear(64, 10, bias=False)
    torch.nn.init.zeros_(model.weight)
    l2 = hg.L2(init=INIT, per=PER[penalties])
    settings = {"model": model, "loss": cross_entropy, "hyperparameters": {"l2": l2}}
    return Watched(data, **settings) if watched else hg.Supervised(**data._asdict(), **settings)


class Curve(Callback):
    """Keeps the losses of every record, with the seconds of CPU time since it was made."""

    def __init__(self) -> None:
        self.begin, self.points = time.process_time(), list[Point]()

    def on_step(self, record: Record) -> None:
        seconds = time.process_time() - self.begin
        self.points.append(Point(seconds, record.outer_loss, record.metrics["test_loss"]))


def handwritten(seed: int, penalties: int) -> list[Point]:
    """The reference: `by_hand`."""
    return by_hand.tune(hg.digits(seed=seed, test=0.5), PER[penalties], init=INIT, steps=STEPS, lr=0.1, tol=TOL)


def ours(
    seed: int, penalties: int, *, optimizer: Callable = hg.LBFGSB, steps: int = 8, folds: int | None = None
) -> list[Point]:
    """Hypergradients by this library; with folds, of the mean dev loss of so many models, and their mean test loss."""
    tuned = problem(seed, penalties)
    curve, tuned = Curve(), tuned if folds is None else hg.k_fold(tuned, folds)
    hg.fit(tuned, ESTIMATOR, optimizer, steps, progress=False, callbacks=[curve])
    return curve.points


def stopped(seed: int, penalties: int) -> list[Point]:
    """Adam on two thirds of dev, up to where the loss on the last third is lowest."""
    curve, tuned = Curve(), problem(seed, penalties, watched=True)
    found = hg.fit(tuned, ESTIMATOR, ADAM, STEPS, progress=False, callbacks=[curve], monitor="watch_loss")
    return curve.points[: found.best.step + 1]


def searched(seed: int, penalties: int, *, method: hg.Search, trials: int) -> list[Point]:
    """A search without gradients, by the trainings of `ours`; the best so far."""
    curve, tuned = Curve(), problem(seed, penalties)
    hg.search(tuned, ESTIMATOR, method, hg.Budget(trials=trials), [curve])
    best, kept = curve.points[0], list[Point]()
    for point in curve.points:
        best = point if point.dev < best.dev else best
        kept.append(best._replace(seconds=point.seconds))
    return kept


OTHER_DEV = ("hypergrad, Adam, 5 folds", "hypergrad, Adam, stopped early")
"""Contestants with other dev images, whose dev loss cannot be compared."""


def contestants(seed: int, penalties: int) -> dict[str, Callable[[], list[Point]]]:
    """The contestants for a number of penalties, on the split of a seed; the reference first."""
    found: dict[str, Callable[[], list[Point]]] = {
        "by hand, Adam": partial(handwritten, seed, penalties),
        "hypergrad, L-BFGS-B": partial(ours, seed, penalties),
        "hypergrad, Adam": partial(ours, seed, penalties, optimizer=ADAM, steps=STEPS),
        "TPE": partial(searched, seed, penalties, method=hg.TPE(seed=seed), trials=TRIALS),
    }
    if penalties > 1:
        found["hypergrad, Adam, 5 folds"] = partial(ours, seed, penalties, optimizer=ADAM, steps=STEPS, folds=5)
    if penalties == 1:
        found["grid"] = partial(searched, seed, penalties, method=hg.GridSearch(), trials=GRID)
    if penalties == 64:
        found["hypergrad, Adam, stopped early"] = partial(stopped, seed, penalties)
    return found
