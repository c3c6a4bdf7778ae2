"""`Trainer` in one line, for notebooks and scripts."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from hypergrad.callback.base import Callback, Result
from hypergrad.callback.jsonl import JSONLines
from hypergrad.callback.model_saver import ModelSaver
from hypergrad.callback.progress import ProgressBar
from hypergrad.callback.state_saver import StateSaver
from hypergrad.callback.summary import Summary, show
from hypergrad.callback.tensorboard import TensorBoard
from hypergrad.core.ranks import ALONE
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.outer.requirements import require_callbacks, require_folder, require_settings
from hypergrad.outer.suggested_sgd import SuggestedSGD
from hypergrad.outer.trainer import Trainer
from hypergrad.problem.base import InnerProblem


def recorders(folder: str | Path) -> list[Callback]:
    """The callbacks that record a run in a folder, the same as those of the command line."""
    return [JSONLines(folder), TensorBoard(folder), StateSaver(folder), ModelSaver(folder), Summary(folder)]


def fit(
    problem: InnerProblem,
    estimator: HypergradEstimator,
    optimizer: Callable[[list[Tensor]], Optimizer] | SuggestedSGD,
    steps: int = 50,
    *,
    folder: str | Path | None = None,
    progress: bool = True,
    any_world: bool = False,
    **settings: Any,
) -> Result:
    """Tune the hyperparameters of a problem: `Trainer` in one line, for a notebook or a script.

    Ctrl-C ends the run, and the result of the steps so far is returned, with `stopped="interrupted"`; before the first
    record there is none, and KeyboardInterrupt says so. A second Ctrl-C, while the callbacks save what was reached,
    raises it at once.

    Args:
        problem: what is tuned.
        estimator: how the hypergradient is formed.
        optimizer: makes a `torch.optim` optimiser from a list of tensors, of the shapes of λ; or a `SuggestedSGD`.
        steps: outer steps, ≥ 0.
        folder: where to record the run, as the command line does: `metrics.jsonl`, TensorBoard's events, the states,
            `hparams.yaml`, `model.pt` and `summary.json`. If it holds an earlier part of this run, that is continued:
            the same call goes on after an interruption, and with more steps after the end.
        progress: show a progress bar, and a table of the result at the end.
        any_world: continue a run of another number of processes, too, see `Trainer.fit`.
        settings: other fields of `Trainer`.

    Returns:
        The best hyperparameters and parameters, with the history.

    Also raised, by what it calls: TypeError if an argument has another type, or there is no such setting;
    CheckpointError if the folder holds a run with other settings, with what differs;
    FolderInUseError if another process writes to it; FileExistsError if it holds something else.

    Examples:
        >>> problem, estimator = hg.Ridge(hg.diabetes()), hg.Implicit(solver=hg.LBFGS())
        >>> result = hg.fit(problem, estimator, lambda u: torch.optim.Adam(u, lr=0.3), 10, progress=False)
        >>> print(f"dev loss {result.best.dev_loss:.3f} at λ = {result.hparams['l2']:.2f}")
        dev loss 0.481 at λ = 0.21
    """
    own = settings.pop("callbacks", ())
    require_callbacks(own)
    require_settings(settings, [field.name for field in fields(Trainer)])
    peers = problem.peers if isinstance(problem, InnerProblem) else ALONE  # Trainer says what it should be
    if folder is not None and peers.is_first:
        require_folder(folder)
    recording = [] if folder is None else recorders(folder)
    callbacks = [*own, *recording, *([ProgressBar()] if progress else [])]
    trainer = Trainer(
        problem=problem, estimator=estimator, optimizer=optimizer, outer_steps=steps, callbacks=callbacks, **settings
    )
    result = trainer.fit(resume=folder, resume_if_any=True, any_world=any_world, on_interrupt="return")
    progress = progress and peers.is_first
    if result.stopped == "interrupted" and progress:
        further = "" if folder is None else f"; the same call goes on from there, in {folder}"
        where = "" if trainer.record_every == 1 else "the record of "
        print(f"Interrupted after {where}outer step {result.last.step}{further}.")
    elif progress and folder is None:
        show(result)
    return result
