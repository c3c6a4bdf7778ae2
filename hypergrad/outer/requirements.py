"""The requirements of the outer loop on its arguments, checked before the first training."""

import inspect
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from hypergrad.callback.base import OUTER_LOSS, Callback
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.estimator.single_loop import SingleLoop
from hypergrad.outer.acceptance import Acceptance
from hypergrad.outer.lbfgsb import LBFGSB
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.precision import require_parameters


def require_makers(optimizer: object, scheduler: object) -> None:
    """Require that the settings of `Trainer` that make an optimiser and a scheduler can be called.

    Raises:
        TypeError: if one of them cannot be called, or is already an optimiser.
    """
    if not callable(optimizer) or isinstance(optimizer, Optimizer):
        raise TypeError(
            "Trainer.optimizer must make an optimiser from a list of tensors, such as "
            f"functools.partial(torch.optim.Adam, lr=0.1), but it is {_shown(optimizer)}."
        )
    if scheduler is not None and not callable(scheduler):
        raise TypeError(
            "Trainer.scheduler must make a scheduler from an optimiser, such as "
            f"functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10), but it is {_shown(scheduler)}."
        )


def require_callbacks(callbacks: Any) -> None:
    """Require a sequence of callbacks.

    Raises:
        TypeError: if it is none.
    """
    is_list = isinstance(callbacks, Sequence) and not isinstance(callbacks, str)
    others = [one for one in callbacks if not isinstance(one, Callback)] if is_list else [callbacks]
    if others:
        raise TypeError(
            f"callbacks must be a list of callbacks, such as [hg.ProgressBar()], but it {'holds' if is_list else 'is'} "
            f"{_shown(others[0])}; give a list of objects whose classes are derived from hg.Callback."
        )


def require_settings(given: Iterable[str], known: Collection[str]) -> None:
    """Require that settings of `fit` are those of `Trainer`.

    Raises:
        TypeError: if one is not.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        remedy = (
            "the device is that of the model and the data: call model.cuda() before hg.Supervised, or problem.to(…)"
            if "device" in unknown
            else "rename or leave out what is not among them"
        )
        raise TypeError(
            "hg.fit must be given a folder, progress, or settings of hg.Trainer, which are "
            f"{', '.join(sorted(known))}, but it got {', '.join(map(repr, unknown))}; {remedy}."
        )


def require_folder(folder: object) -> None:
    """Require that a folder can be made at a path.

    Raises:
        TypeError: if it is no path.
        FileExistsError: if there is a file.
    """
    if not isinstance(folder, str | Path) or not str(folder):
        raise TypeError(f"folder must be the path of a folder, such as 'runs/first', but it is {_shown(folder)}.")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise FileExistsError(f"folder must be the path of a folder, but {folder} is a file; choose another path.")


def _shown(value: object) -> str:
    lines = repr(value).splitlines()
    return f"{lines[0]}{' …' if len(lines) > 1 else ''} of {type(value).__name__}"


def require_tunable(problem: InnerProblem, *, warm_start: bool, retrain: bool) -> None:
    """Require that a problem has hyperparameters, and allows the warm start and the final training that are requested.

    Raises:
        ValueError: if it has no hyperparameters, or a warm start would ignore its `initial`.

    Also raised, by what it calls: ValueError if its parameters are not in float32 or float64.
    """
    if not problem.hyperparameters():
        raise ValueError(
            f"{type(problem).__name__} has no hyperparameters, so there is nothing to tune. "
            "Give it at least one, such as {'l2': hg.L2(init=0.01)} for hg.Supervised."
        )
    problem.init_hparams()  # requires a dict of tensors
    require_parameters(next(iter(problem.init_params().values())), type(problem).__name__)
    if warm_start and problem.tunes_initial:
        raise ValueError(
            f"{type(problem).__name__}.initial defines where training starts, but a warm start goes on where the last "
            "training ended; use warm_start=False."
        )
    if retrain:
        problem.joined(problem.init_hparams())  # raises now, and not after the last step, if there is no such training


def require_same_loss(problem: InnerProblem, compares: object) -> None:
    """Require the same dev loss in all outer steps, for what compares or combines dev losses of different steps.

    Args:
        problem: what is tuned.
        compares: an acceptance or an optimiser; None, or an optimiser without a line search, requires nothing.

    Raises:
        ValueError: if the problem draws another sample of dev in each outer step.
    """
    needs = isinstance(compares, Acceptance | LBFGSB | torch.optim.LBFGS)
    if problem.samples_outer and needs:
        raise ValueError(
            f"{type(compares).__name__} compares dev losses of different outer steps, but {type(problem).__name__} "
            "draws another sample of dev in each of them. Leave dev_sample out (dev_batch_size needs as little "
            "memory), or choose an optimiser without a line search, such as torch.optim.Adam, and no acceptance."
        )


def require_comparable(estimator: HypergradEstimator, compares: object) -> None:
    """Require that the dev loss depends on λ alone, for what compares dev losses.

    Args:
        estimator: forms the hypergradient.
        compares: as in `require_same_loss`.

    Raises:
        ValueError: if the estimator moves the parameters in each evaluation.
    """
    if isinstance(estimator, SingleLoop) and isinstance(compares, Acceptance | LBFGSB | torch.optim.LBFGS):
        raise ValueError(
            f"{type(compares).__name__} compares dev losses, but SingleLoop moves the parameters a little in each "
            "evaluation, so that the loss is another one at the same hyperparameters too. Choose an optimiser without "
            "a line search, such as torch.optim.SGD or Adam, and no acceptance."
        )


def require_warm_start(estimator: HypergradEstimator, warm_start: bool) -> None:
    """Require warm starts for an estimator that follows one solution from outer step to outer step.

    Raises:
        ValueError: if there are none.
    """
    if isinstance(estimator, SingleLoop) and not warm_start:
        raise ValueError(
            "SingleLoop makes one move of the parameters in an outer step, which warm_start=False would undo in the "
            "next; leave it out, or take an estimator that trains in each outer step, such as Implicit."
        )


def require_multiple(exact_every: int | None, record_every: int) -> None:
    """Require that the steps that are evaluated exactly are among those that are recorded.

    Raises:
        ValueError: if they are not.
    """
    if exact_every is not None and exact_every % record_every:
        raise ValueError(
            f"exact_every must be a multiple of record_every = {record_every}, because only steps that are recorded "
            f"are evaluated, but it is {exact_every}; leave it out, or take {record_every}."
        )


def require_every_loss(compares: object, record_every: int) -> None:
    """Require that the dev loss of each step is evaluated, for what needs it.

    Args:
        compares: an acceptance or an optimiser; None, or an optimiser that steps without a closure, requires nothing.
        record_every: as in `Trainer`.

    Raises:
        ValueError: if the loss is only known at some steps.
    """
    step = getattr(compares, "step", None)
    closure = None if step is None else inspect.signature(step).parameters.get("closure")
    is_required = closure is not None and closure.default is inspect.Parameter.empty
    if record_every > 1 and (is_required or isinstance(compares, Acceptance | LBFGSB)):
        raise ValueError(
            f"{type(compares).__name__} needs the dev loss of every outer step, but record_every = {record_every} "
            "evaluates it at recorded steps only. Take record_every=1, or no acceptance and an optimiser without a "
            "line search, such as torch.optim.Adam."
        )


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
