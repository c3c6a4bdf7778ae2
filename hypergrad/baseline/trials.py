"""The trials of a search, each a training with the estimator's own solver, kept as the steps of a run are."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, detach, flatten, unflatten
from hypergrad.baseline.search import Search
from hypergrad.callback.base import Callback, Record, Result, Run
from hypergrad.errors import HypergradError
from hypergrad.estimator.base import HypergradEstimator, Stats
from hypergrad.estimator.implicit import Implicit
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.training import train


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search may spend; it ends after the first trial that spends more.

    Attributes:
        trials: at most so many after the start.
        inner_steps: gradient evaluations in training.
        seconds: wall time.
    """

    trials: int | None = None
    inner_steps: float = math.inf
    seconds: float = math.inf

    @classmethod
    def of(cls, text: str) -> "Budget":
        """From "100" (trials), "30s" (seconds) or "20000steps" (inner steps).

        Raises:
            ValueError: if it is none of them.
        """
        number = text.removesuffix("steps").removesuffix("s")
        try:
            amount = float(number)
        except ValueError:
            amount = -1.0
        if not 0 < amount < math.inf or not text.endswith("s") and amount != int(amount):
            raise ValueError(
                f"budget must be a number of trials, such as 100, of seconds, such as 30s, or of inner steps, such as "
                f"20000steps, but it is {text!r}."
            )
        if text.endswith("steps"):
            return cls(inner_steps=amount)
        return cls(seconds=amount) if text.endswith("s") else cls(trials=int(amount))


_UNBOUNDED = 10**6


def search(
    problem: InnerProblem,
    estimator: HypergradEstimator,
    method: Search,
    budget: Budget,
    callbacks: Sequence[Callback] = (),
    config: dict | None = None,
) -> Result:
    """Tune by a search without gradients, on what a run with gradients trains: the same problem, solver and tolerance.

    A trial that cannot be computed counts as the worst one so far.

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
    total = _UNBOUNDED if budget.trials is None else budget.trials
    run = Run(outer_steps=total if budget.trials else 0, config=config or {"method": repr(method)})
    for callback in callbacks:
        callback.on_start(run)
    first = best = last = None
    history: list[dict[str, float]] = []
    try:
        for record in _records(problem, estimator, method, budget, total):
            first, last = first or record, record
            best = record if best is None or record.outer_loss < best.outer_loss else best
            history.append({"step": record.step, **record.scalars()})
            for callback in callbacks:
                callback.on_step(record)
    except BaseException as error:
        for callback in callbacks:
            callback.on_error(error, last)
        raise
    assert first is not None  # the start itself is a trial
    assert last is not None
    assert best is not None
    result = Result(last.hparams, last.params, first, last, best, "outer_steps", history, {})
    for callback in callbacks:
        callback.on_end(result)
    return result


def _records(
    problem: InnerProblem, estimator: HypergradEstimator, method: Search, budget: Budget, total: int
) -> Iterator[Record]:
    begin, spent, losses = time.perf_counter(), 0, list[float]()
    spaces = problem.hyperparameters()
    u0 = {name: spaces[name].to_unconstrained(value) for name, value in problem.init_hparams().items()}

    @torch.no_grad()
    def trial(u: Tensor) -> Record | None:
        nonlocal spent
        hparams = {name: spaces[name].to_natural(x) for name, x in unflatten(u, u0).items()}
        try:
            params, stats, steps = _trained(problem, estimator, hparams)
            spent += steps
            loss = problem.outer_loss(params, hparams, problem.outer_batch(0)).item()
            metrics = {name: float(x) for name, x in problem.metrics(params, hparams).items()}
        except HypergradError:
            if not losses:
                raise
            spent += estimator.inner_steps
            loss = math.nan
        if not math.isfinite(loss):
            losses.append(max(losses))
            return None
        losses.append(loss)
        seconds = time.perf_counter() - begin
        return Record(len(losses) - 1, hparams, {}, params, loss, metrics, stats, 0, spent, seconds)

    failed = 0
    for u in _with_start(flatten(u0), method, total, losses):
        found = trial(u)
        if found is None:
            failed += 1
        else:
            yield found
        if spent >= budget.inner_steps or time.perf_counter() - begin >= budget.seconds:
            break
    if failed:
        warnings.warn(
            f"{failed} of {len(losses)} trials could not be computed, as where training diverges; each counts as the "
            "worst so far.",
            UserWarning,
            stacklevel=3,
        )


def _with_start(start: Tensor, method: Search, total: int, losses: list[float]) -> Iterator[Tensor]:
    yield start
    yield from method.points(start, total, losses)


def _trained(problem: InnerProblem, estimator: HypergradEstimator, hparams: Tensors) -> tuple[Tensors, Stats, int]:
    solver = getattr(estimator, "solver", None)
    if not isinstance(solver, InnerSolver):
        raise TypeError(f"A baseline trains with the solver of an estimator, but {type(estimator).__name__} has none.")
    solver.validate(hparams, estimator.inner_steps, problem.init_params())
    tol = estimator.inner_tol if isinstance(estimator, Implicit) else 0.0
    trained = train(problem, solver, hparams, problem.init_params(), max_steps=estimator.inner_steps, tol=tol)
    stats: Stats = {
        "inner_loss": trained.end.loss,
        "inner_grad_norm": trained.end.grad_norm,
        "inner_steps": trained.steps,
        "inner_status": trained.status if tol > 0 else "not_required",
    }
    return detach(trained.params), stats, trained.steps
