"""What an outer loop requires of what it is given, before the first training."""

import torch
from torch.optim import Optimizer

from hypergrad.callback.base import OUTER_LOSS
from hypergrad.problem.base import InnerProblem


def require_makers(optimizer: object, scheduler: object) -> None:
    """Require that the settings of `Trainer` that make an optimiser and a scheduler can be called.

    Raises:
        TypeError: if one of them is what it should make, or cannot be called.
    """
    if not callable(optimizer) or isinstance(optimizer, Optimizer):
        raise TypeError(
            "Trainer.optimizer must make an optimiser from a list of tensors, such as "
            f"functools.partial(torch.optim.Adam, lr=0.1), but it is {optimizer!r}."
        )
    if scheduler is not None and not callable(scheduler):
        raise TypeError(
            "Trainer.scheduler must make a scheduler from an optimiser, such as "
            f"functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10), but it is {scheduler!r}."
        )


def require_tunable(problem: InnerProblem, *, warm_start: bool, retrain: bool) -> None:
    """Require that a problem has something to tune, and is trained from where, and on what, it says.

    Raises:
        ValueError: if it has no hyperparameters, or is to start from parameters that are not its own.
    """
    if not problem.hyperparameters():
        raise ValueError(f"{type(problem).__name__} has no hyperparameters, so there is nothing to tune.")
    if warm_start and problem.tunes_initial:
        raise ValueError(
            f"{type(problem).__name__}.initial says where training starts, but a warm start goes on where the last one "
            "ended; use warm_start=False."
        )
    if retrain and type(problem).joined is InnerProblem.joined:
        problem.pooled_targets()  # or it says now that there is no such training, and not after the last step


def require_monitor(problem: InnerProblem, monitor: str) -> None:
    """Require that hyperparameters may be chosen by `monitor`: the outer loss, or a metric that is no test.

    Raises:
        ValueError: if the problem has no such metric, or it is one of the test part.
    """
    if monitor == OUTER_LOSS:
        return
    if monitor.startswith("test"):
        raise ValueError(
            f"monitor is {monitor!r}, but what chooses the hyperparameters is no test of them any more. Give the "
            "problem a metric on examples of their own, such as watch_loss, or leave monitor at outer_loss."
        )
    with torch.no_grad():
        known = problem.metrics(problem.init_params(), problem.init_hparams())
    if monitor not in known:
        raise ValueError(
            f"monitor must be {OUTER_LOSS} or a metric of {type(problem).__name__}, of which there are "
            f"{', '.join(known) or 'none'}, but it is {monitor!r}."
        )
