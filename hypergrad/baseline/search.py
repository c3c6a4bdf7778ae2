"""Tuning by a search without gradients: trials, each a training of the estimator's, kept as the steps of a run are."""

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hypergrad.baseline.base import Search
from hypergrad.baseline.budget import Budget
from hypergrad.callback.base import Callback, Record, Result, Run
from hypergrad.core.autodiff import flatten, unflatten
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.estimator.dev_loss import train_and_evaluate
from hypergrad.outer.journal import Journal
from hypergrad.outer.labels import entry_labels
from hypergrad.outer.lifecycle import end, running
from hypergrad.outer.lock import folders, locked
from hypergrad.problem.base import InnerProblem


def search(
    problem: InnerProblem,
    estimator: HypergradEstimator,
    method: Search,
    budget: Budget,
    callbacks: Sequence[Callback] = (),
    config: dict | None = None,
) -> Result:
    """Tune by a search without gradients, on what a run with gradients trains: the same problem, solver and tolerance.

    What it spends is counted as a run's: inner steps, gradients and products of training, and wall time from before
    the first training. A trial that cannot be computed counts as the worst one so far.

    Args:
        problem: what is tuned.
        estimator: whose solver, inner_steps and inner_tol train; its hypergradient is not formed.
        method: which points are tried.
        budget: what may be spent.
        callbacks: what happens around each trial; a trial is told as an outer step.
        config: describes the search to the callbacks.

    Returns:
        The trials; `last` is the last one, `best` the one of the lowest dev loss.

    Raises:
        ValueError: if the problem is spread over several processes.
    """
    if problem.peers.world > 1:
        raise ValueError(
            f"A search runs in one process, but its problem is spread over {problem.peers.world}; start it without "
            "torchrun, several searches side by side where there are many processors."
        )
    trials = _Trials(problem, estimator, method, budget)
    config = config or {"method": repr(method)}
    run = Run(budget.trials or 0, problem, estimator, config, best=lambda: trials.journal.best)
    with locked(folders(callbacks)), running(callbacks, run, trials.journal) as started:
        for record in trials.records():
            trials.journal.add(record)
            for callback in callbacks:
                callback.on_step(record)
        result = trials.journal.result("budget")
        end(started, result)
    return result


class _Trials:
    """The trials of one search, and what was found in them."""

    def __init__(self, problem: InnerProblem, estimator: HypergradEstimator, method: Search, budget: Budget) -> None:
        self.problem, self.estimator, self.method, self.budget = problem, estimator, method, budget
        self.spaces = problem.hyperparameters()
        self.u0 = {name: self.spaces[name].to_unconstrained(x) for name, x in problem.init_hparams().items()}
        self.journal = Journal(self.u0, labels=entry_labels(problem, estimator))
        self.losses: list[float] = []
        self.failed = 0

    def records(self) -> Iterator[Record]:
        """Try the start and the points of the method until the budget is spent."""
        ledger = self.journal.ledger
        for u in self._points():
            record = self._tried(u)
            if record is not None:
                yield record
            if self.budget.is_spent(ledger.cost, ledger.num_inner_steps, ledger.seconds()):
                break
        if self.failed:
            warnings.warn(
                f"{self.failed} of {len(self.losses)} trials could not be computed, as where training diverges; each "
                "counts as the worst so far.",
                UserWarning,
                stacklevel=3,
            )

    def _points(self) -> Iterator[Tensor]:
        start = flatten(self.u0)
        yield start
        yield from self.method.points(start, self.budget.trials, self.losses)

    @torch.no_grad()
    def _tried(self, u: Tensor) -> Record | None:
        """The record of a trial; None where it could not be computed.

        Raises:
            HypergradError: if that is the start.
        """
        ledger, step = self.journal.ledger, len(self.losses)
        hparams = {name: self.spaces[name].to_natural(x) for name, x in unflatten(u, self.u0).items()}
        try:
            with ledger.counting():
                found = train_and_evaluate(self.problem, self.estimator, hparams)
        except HypergradError:
            if step == 0:
                raise
            self.failed += 1
            ledger.num_inner_steps += self.estimator.inner_steps
            self.losses.append(max(self.losses))
            return None
        self.losses.append(found.outer_loss)
        return ledger.record(step, self.problem, hparams, found)
