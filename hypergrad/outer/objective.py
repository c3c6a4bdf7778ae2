"""The dev loss as a function of unconstrained hyperparameters, with what one evaluation leaves to the next."""

import time
import warnings
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from hypergrad.callback.base import Record
from hypergrad.core.autodiff import Tensors
from hypergrad.core.cost import Cost
from hypergrad.core.errors import HypergradError, NotConvergedWarning
from hypergrad.core.hyperparameter import shown
from hypergrad.estimator.base import HypergradEstimator, Stats
from hypergrad.estimator.inexact import inexactness
from hypergrad.outer.state import placed
from hypergrad.problem.base import InnerProblem


class OuterObjective:
    """u ↦ F(λ) with λ = transform(u), and dF/du = (∂λ/∂u)ᵀ dF/dλ in the `.grad` of u.

    Args:
        problem: what is tuned.
        estimator: how the hypergradient is formed.
        warm_start: start each training, and each adjoint system, from where the last one ended.
        max_grad_norm: ‖dF/du‖ is clipped to this; None leaves it.
    """

    def __init__(
        self, problem: InnerProblem, estimator: HypergradEstimator, *, warm_start: bool, max_grad_norm: float | None
    ) -> None:
        self.problem, self.estimator = problem, estimator
        self.warm_start, self.max_grad_norm = warm_start, max_grad_norm
        self.spaces = problem.hyperparameters()
        self.u = {
            name: self.spaces[name].to_unconstrained(value).detach().clone().requires_grad_()
            for name, value in problem.init_hparams().items()
        }
        self.params = problem.init_params()
        self.adjoint: Tensor | None = None
        self.num_matvecs, self.num_inner_steps, self.cost = 0, 0, Cost()
        self.warned: set[str] = set()
        self.begin = time.perf_counter()

    def evaluate(self, step: int, last: Record | None) -> Record:
        """The record at the present u, as outer step `step`; `last` is the one before, for errors to refer to.

        Also raised, by what it calls: the HypergradError of the estimator, with where that was.
        """
        if last is None:
            self.begin = time.perf_counter()  # not before: an optimiser's first import takes a second
        hparams = {name: self.spaces[name].to_natural(u) for name, u in self.u.items()}
        # A copy, because u moves in place, and is λ itself where there is no constraint.
        natural = {name: value.detach().clone() for name, value in hparams.items()}
        problem = self.problem.at_outer_step(step)
        try:
            with self.cost.counting():
                found = self.estimator.estimate(
                    problem,
                    natural,
                    self.params if self.warm_start else problem.init_params(),
                    outer_step=step,
                    inner_step=step * self.estimator.inner_steps if self.warm_start else 0,
                    adjoint=self.adjoint if self.warm_start else None,
                )
        except HypergradError as error:
            raise type(error)(f"{error}{_whereabouts(step, natural, last)}") from error
        self._keep_gradient(hparams, found.grad)
        self.params, self.adjoint = found.params, found.adjoint
        self.num_matvecs += int(found.stats["num_matvecs"]) + int(found.stats.get("error_matvecs", 0))
        self.num_inner_steps += int(found.stats["inner_steps"])
        self._warn(found.stats, step)
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
            num_matvecs=self.num_matvecs + self.cost.matvecs,
            num_gradients=self.cost.gradients,
            num_inner_steps=self.num_inner_steps,
            seconds=time.perf_counter() - self.begin,
        )

    @torch.no_grad()
    def place(self, values: Tensors) -> None:
        """Set u."""
        for name, value in values.items():
            self.u[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, which later evaluations do not change."""
        return {
            "params": self.params,
            "adjoint": self.adjoint,
            "u": {name: u.detach().clone() for name, u in self.u.items()},
            "grad": {name: u.grad for name, u in self.u.items()},
            "num_matvecs": self.num_matvecs,
            "num_inner_steps": self.num_inner_steps,
            "cost": asdict(self.cost),
            "warned": sorted(self.warned),
        }

    def restore(self, state: dict[str, Any], seconds: float) -> None:
        """Go back to a state, `seconds` after the run began."""
        device = next(iter(self.u.values())).device
        self.place(placed(state["u"], device))
        for name, grad in placed(state["grad"], device).items():
            self.u[name].grad = grad
        self.params = placed(state["params"], device)
        self.adjoint = None if state["adjoint"] is None else state["adjoint"].to(device)
        self.num_matvecs, self.num_inner_steps = state["num_matvecs"], state["num_inner_steps"]
        self.cost, self.warned = Cost(**state["cost"]), set(state["warned"])
        self.begin = time.perf_counter() - seconds

    def _keep_gradient(self, hparams: Tensors, grad: Tensors) -> None:
        pulled = torch.autograd.grad(
            tuple(hparams.values()), tuple(self.u.values()), tuple(grad[name] for name in hparams)
        )
        for u, grad_u in zip(self.u.values(), pulled, strict=True):
            u.grad = grad_u
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(self.u.values()), self.max_grad_norm)

    def _warn(self, stats: Stats, step: int) -> None:
        """Say once for each kind that an estimate is inexact."""
        for key, message in inexactness(stats).items():
            if key not in self.warned:
                self.warned.add(key)
                warnings.warn(
                    f"From outer step {step} on, {message} Said once; every step is in the metrics.",
                    NotConvergedWarning,
                    stacklevel=2,
                )


def _whereabouts(step: int, hparams: Tensors, last: Record | None) -> str:
    """Where an error was met, if the optimiser had a hand in it."""
    if last is None:
        return ""
    moves = [f"{name} = {shown(value)} (from {shown(last.hparams[name])})" for name, value in hparams.items()]
    return (
        f" This was in outer step {step}, where the optimiser tried {', '.join(moves)}; if that is further than it "
        "should go, lower the lr of the optimiser, or use one without a line search."
    )
