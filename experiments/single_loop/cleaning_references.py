"""The small network of the hyper-cleaning table, trained without learned weights."""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg

STEPS, BATCH_SIZE = 1000, 256
_SIDE = 28


def small_cnn() -> nn.Module:
    """Two convolutions with stride 2 and a linear layer, 11,274 parameters, for images of 28 × 28 pixels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, _SIDE, _SIDE)),
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 10),
    )


def trained_on_each(
    data: hg.Splits, model: Callable[[], nn.Module], *, l2: float, seed: int, steps: int = STEPS
) -> dict[str, dict[str, float]]:
    """A network trained on the right labels only, on all labels, and on dev alone, in as many steps each."""
    cleaning = hg.HyperCleaning(data, l2=l2, model=model(), batch_size=BATCH_SIZE, dev_batch_size=1000, seed=seed)
    right = (~cleaning.is_wrong).to(cleaning.X.dtype)
    on_dev = hg.Supervised(
        model=model(),
        loss=cross_entropy,
        train=data.dev,
        dev=data.train,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=l2)},
        batch_size=BATCH_SIZE,
        dev_batch_size=1000,
        seed=seed,
    )
    return {
        "oracle": trained(cleaning, {"weights": right}, steps),
        "baseline": trained(cleaning, {"weights": torch.ones_like(right)}, steps),
        "dev alone": trained(on_dev, on_dev.init_hparams(), steps),
    }


def trained(problem: hg.InnerProblem, hparams: hg.Tensors, steps: int) -> dict[str, float]:
    """The test accuracy after training at fixed hyperparameters."""
    begin = time.process_time()
    solver = hg.Momentum(lr=hg.Cosine(base=0.05, steps=steps, end=0.05), momentum=0.9)
    w = hg.Training(solver=solver, steps=steps).run(problem, hparams, problem.init_params()).params
    return {"test": float(problem.metrics(w, hparams)["test_accuracy"]), "cpu": time.process_time() - begin}
