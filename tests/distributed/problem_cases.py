"""Problems shared by several processes, each against the same problem on one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, huber_loss, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import flatten

N, DEV, CLASSES = 13, 7, 3
WEIGHT = torch.tensor([0.5, 2.0, 1.3], dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(n: int, *, ignored: int = 0) -> Tensor:
    y = torch.randint(0, CLASSES, (n,), generator=torch.Generator().manual_seed(n))
    y[:ignored] = -100
    return y


def network(width: int, *, inside: nn.Module | None = None, inputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 5), inside or nn.Tanh(), nn.Linear(5, width)).double()


def sum_of_squares(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - y).square().sum()


def supervised(loss: Any, y: Tensor, effects: Any = (), *, width: int = CLASSES, **settings: Any) -> hg.Supervised:
    y_dev = classes(DEV) if not y.is_floating_point() else draw(DEV, seed=3)
    usual: dict[str, Any] = {"model": network(width), "train": (draw(N, 4, seed=1), y)}
    return hg.Supervised(
        loss=loss,
        dev=(draw(DEV, 4, seed=2), y_dev),
        hyperparameters={"l2": hg.L2(init=0.3, per="tensor"), **dict(effects)},
        **usual | settings,
    )


def unrolled(steps: int = 3) -> Any:
    return hg.Unrolled(solver=hg.Momentum(lr=0.05), inner_steps=steps)


def implicit(**settings: Any) -> Any:
    usual: dict[str, Any] = {"linsolve": hg.CG(tol=1e-13), "inner_steps": 3, "inner_tol": 0.0, "damping": 40.0}
    return hg.Implicit(solver=hg.Momentum(lr=0.05), error_bar=False, **usual | settings)


def found(problem: Any, estimator: Any, step: int = 1) -> Any:
    """A hypergradient at the problem of an outer step."""
    now = problem.at_outer_step(step)
    return estimator.estimate(now, now.init_hparams(), now.init_params(), outer_step=step)


def error(one: Any, many: Any) -> float:
    """The largest relative difference between two hypergradients, of dF/dλ, w and the loss."""
    pairs = [(flatten(a), flatten(b)) for a, b in ((one.grad, many.grad), (one.params, many.params))]
    errors = [((a - b).norm() / a.norm()).item() for a, b in pairs]
    return max(*errors, abs(one.outer_loss - many.outer_loss) / abs(one.outer_loss))


def compared(make: Callable[[], Any], *estimators: Any, wrap: Callable[[Any], Any] = hg.DataParallel) -> list[float]:
    """The errors of a problem that is shared, one for each estimator; by default `Unrolled` and `Implicit`."""
    return [error(found(make(), e), found(wrap(make()), e)) for e in estimators or (unrolled(), implicit())]


each = {"each": hg.ExampleWeights()}
DECLARED = {"classes": hg.ClassWeights()}
SMOOTHED = {"smooth": hg.LabelSmoothing(init=0.1), **each}
LOSSES: dict[str, Callable[[], Any]] = {
    "mean": lambda: supervised(mse_loss, draw(N), width=1),
    "own sum": lambda: supervised(sum_of_squares, draw(N), width=1),
    "sum": lambda: supervised(partial(huber_loss, reduction="sum"), draw(N), each, width=1, dev_sample=3),
    "several values": lambda: supervised(lambda z, y: (z - y).square(), draw(N), width=1),
    "class weights": lambda: supervised(partial(cross_entropy, weight=WEIGHT), classes(N), DECLARED, batch_size=5),
    "ignored": lambda: supervised(partial(cross_entropy, weight=WEIGHT), classes(N, ignored=7), each),
    "smoothed, in micro-batches": lambda: supervised(
        cross_entropy, classes(N, ignored=4), SMOOTHED, micro_batch=2, dev_batch_size=2
    ),
    "fixed batches": lambda: supervised(
        cross_entropy, classes(N), each, batch_size=4, fixed_batches=True, dev_sample=2
    ),
    "one example": lambda: supervised(cross_entropy, classes(N), each, batch_size=1, dev_sample=1),
    "weighted": lambda: supervised(cross_entropy, classes(N)).weighted("more"),
}


def ridge() -> hg.Ridge:
    data = hg.Splits(*(hg.Split(draw(n, 3, seed=n), draw(n, seed=-n + 100)) for n in (N, DEV, 4)))
    return hg.Ridge(data, per_feature=True)


def splits(n: int = N) -> hg.Splits:
    return hg.Splits(*(hg.Split(draw(m, 4, seed=m), classes(m)) for m in (n, DEV, 4)))


def cleaning(**settings: Any) -> hg.HyperCleaning:
    return hg.HyperCleaning(splits(), noise=0.3, model=network(CLASSES), **settings)


def distillation() -> hg.Distillation:
    return hg.Distillation(splits(), per_class=2, model=network(CLASSES))


def tasks(**settings: Any) -> hg.MetaLearning:
    family = hg.Sinusoids(shots=3, queries=4)
    usual = {"model": network(1, inputs=1), "loss": mse_loss, "tasks": family, "tasks_per_step": 3, "test_tasks": 2}
    return hg.MetaLearning(**usual | settings)


def posteriors(inside: nn.Module | None = None) -> hg.SemiAmortized:
    data = hg.Splits(*(hg.Split((draw(n, 6, seed=n) > 0).double(), classes(n)) for n in (N, DEV, 4)))
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(6, 4).double(), network(6, inside=inside, inputs=2)
    return hg.SemiAmortized(data, encoder=encoder, decoder=decoder, latent=2, batch_size=5, num_test=2)


def learning() -> hg.LearningToLearn:
    rate = hg.Hyperparameter(0.05, constraint=hg.positive)
    return hg.LearningToLearn(LOSSES["class weights"](), {"lr": rate})


def tied() -> hg.Tied:
    return hg.Tied(LOSSES["ignored"](), name="each", groups=4)


learned = hg.Unrolled(solver=hg.GradientDescent(lr="lr"), inner_steps=3)
DataParallel = hg.DataParallel
PARITY: dict[str, Callable[[], list[float]]] = {name: partial(compared, make) for name, make in LOSSES.items()} | {
    "ridge": lambda: compared(ridge),
    "cleaning": lambda: compared(partial(cleaning, batch_size=5)),
    "distillation": lambda: compared(distillation, unrolled()),
    "tasks": lambda: compared(partial(tasks, proximity=1.0)),
    "one task": lambda: compared(partial(tasks, tasks_per_step=1, test_tasks=0), unrolled()),
    "posteriors": lambda: compared(posteriors, unrolled()),
    "learning to learn": lambda: compared(learning, learned),
    "wraps learning to learn": lambda: compared(
        learning, learned, wrap=lambda p: hg.LearningToLearn(DataParallel(p.problem), p.hyperparameters())
    ),
    "tied": lambda: compared(tied),
    "wraps tied": lambda: compared(tied, wrap=lambda p: hg.Tied(DataParallel(p.problem), name="each", groups=4)),
    "folds over ranks": lambda: compared(lambda: hg.k_fold(cleaning(batch_size=5), 3)),
    "folds in parts": lambda: compared(
        lambda: hg.k_fold(LOSSES["smoothed, in micro-batches"](), 3),
        wrap=lambda _: hg.k_fold(DataParallel(LOSSES["smoothed, in micro-batches"]()), 3),
    ),
    "folds, Gauss–Newton": lambda: compared(
        lambda: hg.k_fold(LOSSES["mean"](), 3), implicit(product=hg.GaussNewton(), damping=2.0)
    ),
}
