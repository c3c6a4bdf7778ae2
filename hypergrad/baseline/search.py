"""Tuning by a search without gradients: trials, each a training of the estimator's, kept as the steps of a run are."""

import time
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hypergrad.baseline.base import Search
from hypergrad.baseline.budget import Budget
from hypergrad.callback.base import MOST_ENTRIES, Callback, Record, Result, Run
from hypergrad.core.autodiff import flatten, unflatten
from hypergrad.core.cost import Cost
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.estimator.report import flat
from hypergrad.estimator.trial import trial
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
    """
    trials = _Trials(problem, estimator, method, budget)
    for callback in callbacks:
        callback.on_start(Run(budget.trials or 0, problem, estimator, config or {"method": repr(method)}))
    try:
        for record in trials.records():
            for callback in callbacks:
                callback.on_step(record)
    except BaseException as error:
        for callback in callbacks:
            callback.on_error(error, trials.last)
        raise
    result = trials.result()
    for callback in callbacks:
        callback.on_end(result)
    return result


class _Trials:
    """The trials of one search: what they found, and what they have spent."""

    def __init__(self, problem: InnerProblem, estimator: HypergradEstimator, method: Search, budget: Budget) -> None:
        self.problem, self.estimator, self.method, self.budget = problem, estimator, method, budget
        self.begin, self.cost, self.num_inner_steps, self.failed = time.perf_counter(), Cost(), 0, 0
        self.spaces = problem.hyperparameters()
        self.u0 = {name: self.spaces[name].to_unconstrained(x) for name, x in problem.init_hparams().items()}
        self.losses: list[float] = []
        self.history: list[dict[str, float]] = []
        self.trajectory: dict[str, list[Tensor]] = {k: [] for k, x in self.u0.items() if x.numel() <= MOST_ENTRIES}
        self.first: Record | None = None
        self.last: Record | None = None
        self.best: Record | None = None

    def records(self) -> Iterator[Record]:
        """Try the start and the points of the method until the budget is spent."""
        for u in self._points():
            record = self._tried(u)
            if record is None:
                self.failed += 1
            else:
                self._keep(record)
                yield record
            if self.budget.is_spent(self.cost, self.num_inner_steps, time.perf_counter() - self.begin):
                break
        if self.failed:
            warnings.warn(
                f"{self.failed} of {len(self.losses)} trials could not be computed, as where training diverges; each "
                "counts as the worst so far.",
                UserWarning,
                stacklevel=3,
            )

    def result(self) -> Result:
        """What the trials came to."""
        assert self.first is not None  # the start itself is a trial
        assert self.last is not None
        assert self.best is not None
        trajectory = {name: torch.stack(values) for name, values in self.trajectory.items()}
        last = self.last
        return Result(last.hparams, last.params, self.first, last, self.best, "budget", self.history, trajectory)

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
        hparams = {name: self.spaces[name].to_natural(x) for name, x in unflatten(u, self.u0).items()}
        try:
            with self.cost.counting():
                found = trial(self.problem, self.estimator, hparams)
        except HypergradError:
            if not self.losses:
                raise
            self.num_inner_steps += self.estimator.inner_steps
            self.losses.append(max(self.losses))
            return None
        self.num_inner_steps += found.training.steps
        self.losses.append(found.outer_loss)
        metrics = {name: float(x) for name, x in self.problem.metrics(found.params, hparams).items()}
        return Record(
            step=len(self.losses) - 1,
            hparams=hparams,
            grad={},
            params=found.params,
            outer_loss=found.outer_loss,
            metrics=metrics,
            stats=flat(found.training),
            num_matvecs=self.cost.matvecs,
            num_gradients=self.cost.gradients,
            num_inner_steps=self.num_inner_steps,
            seconds=time.perf_counter() - self.begin,
        )

    def _keep(self, record: Record) -> None:
        self.first, self.last = self.first or record, record
        if self.best is None or record.outer_loss < self.best.outer_loss:
            self.best = record
        self.history.append({"step": record.step, **record.scalars()})
        for name, values in self.trajectory.items():
            values.append(record.hparams[name])
