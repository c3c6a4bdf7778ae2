"""The requirements of the outer loop on its arguments, checked before the first training."""

import torch
from torch.optim import Optimizer

from hypergrad.callback.base import OUTER_LOSS
from hypergrad.problem.base import InnerProblem


def require_makers(optimizer: object, scheduler: object) -> None:
    """Require that the settings of `Trainer` that make an optimiser and a scheduler can be called.

    Raises:
        TypeError: if one of them cannot be called, or is already an optimiser.
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
    """Require that a problem has hyperparameters, and allows the warm start and the final training that are requested.

    Raises:
        ValueError: if it has no hyperparameters, or a warm start would ignore its `initial`.
    """
    if not problem.hyperparameters():
        raise ValueError(f"{type(problem).__name__} has no hyperparameters, so there is nothing to tune.")
    if warm_start and problem.tunes_initial:
        raise ValueError(
            f"{type(problem).__name__}.initial defines where training starts, but a warm start goes on where the last "
            "training ended; use warm_start=False."
        )
    if retrain and type(problem).joined is InnerProblem.joined:
        problem.pooled_targets()  # raises now, and not after the last step, if there is no such training


def require_monitor(problem: InnerProblem, monitor: str) -> None:
    """Require that hyperparameters may be chosen by `monitor`: the outer loss, or a metric not of the test part.

    Raises:
        ValueError: if the problem has no such metric, or it is one of the test part.
    """
    if monitor == OUTER_LOSS:
        return
    if monitor.startswith("test"):
        raise ValueError(
            f"monitor is {monitor!r}, but data that chooses the hyperparameters can no longer test them. Give the "
            "problem a metric on examples of their own, such as watch_loss, or leave monitor at outer_loss."
        )
    with torch.no_grad():
        known = problem.metrics(problem.init_params(), problem.init_hparams())
    if monitor not in known:
        raise ValueError(
            f"monitor must be {OUTER_LOSS} or a metric of {type(problem).__name__}, which are "
            f"{', '.join(known) or 'none'}, but it is {monitor!r}."
        )
