"""The outer loop: estimate the hypergradient, step the hyperparameters."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hypergrad.autodiff import Tensors, detach, flatten
from hypergrad.callback.base import Callback, Record, Run
from hypergrad.errors import HypergradError, NonFiniteError, NotConvergedWarning
from hypergrad.estimator.base import HypergradEstimator, Stats
from hypergrad.estimator.inexact import inexactness
from hypergrad.hyperparameter import shown
from hypergrad.problem.base import InnerProblem
from hypergrad.validation import require_instance, require_int


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        hparams: the final λ in natural units.
        params: the parameters trained there.
        first: the record at the initial λ.
        last: the record at the final λ.
        history: the scalars of every record, in order, by the tags of TensorBoard, with `step`.
    """

    hparams: Tensors
    params: Tensors
    first: Record
    last: Record
    history: list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Minimises the dev loss over the hyperparameters with any `torch.optim` optimiser.

    The optimiser moves unconstrained values u; the estimator sees λ = transform(u), and dF/du = (∂λ/∂u)ᵀ dF/dλ.

    Attributes:
        problem: what is tuned.
        estimator: how the hypergradient is formed.
        optimizer: makes a `torch.optim` optimiser from a list of tensors, such as `partial(torch.optim.Adam, lr=0.1)`.
        outer_steps: updates of λ, ≥ 0; one more estimate is made after the last, so that its result is known.
        warm_start: start training from the parameters of the step before instead of from `problem.init_params()`, and
            the adjoint system from its solution there.
        callbacks: what happens around each step.
    """

    problem: InnerProblem
    estimator: HypergradEstimator
    optimizer: Callable[[list[Tensor]], Optimizer]
    outer_steps: int = 50
    warm_start: bool = True
    callbacks: Sequence[Callback] = field(default=())

    def __post_init__(self) -> None:
        require_instance(self, "problem", InnerProblem)
        require_instance(self, "estimator", HypergradEstimator)
        require_int(self, "outer_steps", least=0)
        require_instance(self, "warm_start", bool)
        if not callable(self.optimizer) or isinstance(self.optimizer, Optimizer):
            raise TypeError(
                "Trainer.optimizer must make an optimiser from a list of tensors, such as "
                f"functools.partial(torch.optim.Adam, lr=0.1), but it is {self.optimizer!r}."
            )
        if self.warm_start and self.problem.tunes_initial:
            raise ValueError(
                f"{type(self.problem).__name__}.initial says where training starts, but a warm start goes on where the "
                "last one ended; use warm_start=False."
            )
        if not self.problem.hyperparameters():
            raise ValueError(f"{type(self.problem).__name__} has no hyperparameters, so there is nothing to tune.")

    def fit(self, config: dict[str, Any] | None = None) -> Result:
        """Run the outer loop.

        Args:
            config: describes the run to the callbacks; by default the estimator and the number of steps.

        Returns:
            The final hyperparameters and parameters, with the records.

        Raises:
            BaseException: whatever stopped the run, after the callbacks have kept what was reached.
        """
        config = config or {"estimator": repr(self.estimator), "outer_steps": self.outer_steps}
        loop, started = _Loop(self), []
        try:
            for callback in self.callbacks:
                callback.on_start(Run(outer_steps=self.outer_steps, config=config))
                started.append(callback)
            result = loop.run()
        except BaseException as error:
            for callback in started:
                callback.on_error(error, loop.last)
            raise
        for callback in self.callbacks:
            callback.on_end(result.first, result.last)
        return result


class _Loop:
    """The state of one run."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        problem = trainer.problem
        self.spaces = problem.hyperparameters()
        self.u = {
            name: self.spaces[name].to_unconstrained(value).detach().clone().requires_grad_()
            for name, value in problem.init_hparams().items()
        }
        self.params = problem.init_params()
        self.adjoint: Tensor | None = None
        self.num_matvecs = 0
        self.warned: set[str] = set()
        self.history: list[dict[str, float]] = []
        self.last: Record | None = None
        self.begin = time.perf_counter()

    def run(self) -> Result:
        optimizer = self.trainer.optimizer(list(self.u.values()))
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Trainer.optimizer must make a torch.optim.Optimizer, but it made {optimizer!r}.")
        first = last = self.observe(0)
        for step in range(self.trainer.outer_steps):
            self.advance(optimizer, last)
            last = self.observe(step + 1)
        return Result(last.hparams, last.params, first, last, self.history)

    def observe(self, step: int) -> Record:
        """Estimate, and tell everyone."""
        self.last = record = self.evaluate(step)
        self.history.append({"step": step, **record.scalars()})
        for callback in self.trainer.callbacks:
            callback.on_step(record)
        return record

    def evaluate(self, step: int) -> Record:
        """Estimate at the present u and leave dF/du in its `.grad`."""
        trainer, problem = self.trainer, self.trainer.problem
        hparams = {name: self.spaces[name].to_natural(u) for name, u in self.u.items()}
        natural = detach(hparams)
        try:
            found = trainer.estimator.estimate(
                problem,
                natural,
                self.params if trainer.warm_start else problem.init_params(),
                outer_step=step,
                inner_step=step * trainer.estimator.inner_steps if trainer.warm_start else 0,
                adjoint=self.adjoint if trainer.warm_start else None,
            )
        except HypergradError as error:
            raise type(error)(f"{error}{self.whereabouts(step, natural)}") from error
        grads = torch.autograd.grad(
            tuple(hparams.values()), tuple(self.u.values()), tuple(found.grad[name] for name in hparams)
        )
        for u, grad in zip(self.u.values(), grads, strict=True):
            u.grad = grad
        self.params, self.adjoint = found.params, found.adjoint
        self.num_matvecs += int(found.stats["num_matvecs"]) + int(found.stats.get("error_matvecs", 0))
        self.warn(found.stats, step)
        with torch.no_grad():
            metrics = {name: float(x) for name, x in problem.metrics(found.params, natural).items()}
        return Record(
            step=step,
            hparams=natural,
            grad=found.grad,
            params=found.params,
            outer_loss=found.outer_loss,
            metrics=metrics,
            stats=found.stats,
            num_matvecs=self.num_matvecs,
            seconds=time.perf_counter() - self.begin,
        )

    def advance(self, optimizer: Optimizer, record: Record) -> None:
        """One step of the optimiser, whose first look at the loss is the record just made.

        Raises:
            NonFiniteError: if the step leads to values that are not finite.
        """
        waiting = [record.outer_loss]

        def closure() -> float:
            # A line search asks again, at other u.
            return waiting.pop() if waiting else self.evaluate(record.step).outer_loss

        optimizer.step(closure)
        if not flatten(detach(self.u)).isfinite().all():
            bad = [name for name, u in self.u.items() if not u.isfinite().all()]
            raise NonFiniteError(
                f"Outer step {record.step} moved {', '.join(bad)} to NaN or infinity, where ‖dF/dλ‖ was "
                f"{record.scalars()['hypergradient/norm']:.2e}; lower the lr of the optimiser."
            )

    def whereabouts(self, step: int, hparams: Tensors) -> str:
        """Where an error was met, if the optimiser had a hand in it."""
        if self.last is None:
            return ""
        moves = [f"{name} = {shown(value)} (from {shown(self.last.hparams[name])})" for name, value in hparams.items()]
        return (
            f" This was in outer step {step}, where the optimiser tried {', '.join(moves)}; if that is further than it "
            "should go, lower the lr of the optimiser, or use one without a line search."
        )

    def warn(self, stats: Stats, step: int) -> None:
        """Say once for each kind that an estimate is inexact."""
        for key, message in inexactness(stats).items():
            if key not in self.warned:
                self.warned.add(key)
                warnings.warn(
                    f"From outer step {step} on, {message} Said once; every step is in the metrics.",
                    NotConvergedWarning,
                    stacklevel=2,
                )
