"""The dev loss as a function of unconstrained hyperparameters, with the warm starts between evaluations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.placement import placed
from hypergrad.core.torch_internals.trees import tree_leaves
from hypergrad.estimator.base import HypergradEstimator, Hypergradient
from hypergrad.outer.spread import Spread
from hypergrad.problem.base import InnerProblem


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation of the outer objective.

    Attributes:
        problem: the problem of the outer step.
        hparams: λ in natural units; on several processes that share its rows, those of this one.
        found: the hypergradient there, of the same rows.
    """

    problem: InnerProblem
    hparams: Tensors
    found: Hypergradient


@dataclass(frozen=True)
class Snapshot:
    """The state of an outer objective: everything on which its next evaluation depends.

    Attributes:
        u: the unconstrained hyperparameters.
        params: the parameters from which a warm start trains.
        carry: `Hypergradient.carry` of the last estimate.
    """

    u: Tensors
    params: Tensors
    carry: Any


class OuterObjective:
    """u ↦ F(λ) with λ = transform(u), and dF/du = (∂λ/∂u)ᵀ dF/dλ in the `.grad` of u.

    Args:
        problem: what is tuned.
        estimator: how the hypergradient is formed.
        warm_start: start each training, and each adjoint system, from the result of the last one.
        max_grad_norm: ‖dF/du‖ is clipped to this; None does not clip.
    """

    def __init__(
        self, problem: InnerProblem, estimator: HypergradEstimator, *, warm_start: bool, max_grad_norm: float | None
    ) -> None:
        self.problem, self.estimator = problem, estimator
        self.warm_start, self.max_grad_norm = warm_start, max_grad_norm
        start = problem.init_hparams()
        self.spaces = problem.hyperparameters()
        self.spread = Spread(problem.shards(), device=next(iter(start.values())).device)
        self._on_shards = problem.on_shards()
        self.u = {
            name: self.spaces[name].to_unconstrained(value).detach().clone().requires_grad_()
            for name, value in self.spread.own(start).items()
        }
        self._params, self._carry = problem.init_params(), None

    def hparams(self) -> Tensors:
        """λ at the current u, differentiable with respect to u."""
        return {name: self.spaces[name].to_natural(u) for name, u in self.u.items()}

    def evaluate(self, step: int) -> Evaluation:
        """The hypergradient at the current u, as outer step `step`; `.grad` of u is set to its pull-back.

        Also raised, by what it calls: the HypergradError of the estimator.
        """
        return self._evaluate(self.estimator.estimate, step)

    def unrecorded(self, step: int) -> Hypergradient:
        """`evaluate` for an outer step that is not recorded.

        Also raised, by what it calls: the HypergradError of the estimator.
        """
        return self._evaluate(self.estimator.unrecorded, step).found

    def _evaluate(self, estimate: Callable[..., Hypergradient], step: int) -> Evaluation:
        hparams, problem, evaluated = self.hparams(), *self._at_outer_step(step)
        # A copy, because u moves in place, and u is λ itself if there is no constraint.
        natural = {name: value.detach().clone() for name, value in hparams.items()}
        found = estimate(
            evaluated,
            self.spread.for_losses(natural),
            self._params if self.warm_start else problem.init_params(),
            outer_step=step,
            inner_step=step * self.estimator.inner_steps if self.warm_start else 0,
            carry=self._carry if self.warm_start else None,
        )
        if not self.estimator.sums_rows:
            found = self.spread.estimated(found)
        self._pull_back(hparams, found.grad)
        self._params, self._carry = found.params, found.carry
        return Evaluation(problem, natural, found)

    def _at_outer_step(self, step: int) -> tuple[InnerProblem, InnerProblem]:
        """The problem of an outer step, and the one whose λ is on this process."""
        problem = self.problem.at_outer_step(step)
        return problem, self._on_shards.at_outer_step(step) if self.spread else problem

    @torch.no_grad()
    def place(self, values: Tensors) -> None:
        """Set u."""
        for name, value in values.items():
            self.u[name].copy_(value)

    def snapshot(self) -> Snapshot:
        """The current state; later evaluations do not change it."""
        return Snapshot({name: u.detach().clone() for name, u in self.u.items()}, self._params, self._carry)

    def rewind(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; the gradients of u stay until the next evaluation."""
        self.place(snapshot.u)
        self._params, self._carry = snapshot.params, snapshot.carry

    def state(self) -> dict[str, Any]:
        """What `restore` needs; later evaluations do not change it."""
        now = self.snapshot()
        grad = {name: u.grad for name, u in self.u.items()}
        return {
            "u": now.u,
            "params": now.params,
            "adjoint": now.carry,  # its name in state files of earlier versions
            "grad": grad,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        device = next(iter(self.u.values())).device
        self.rewind(Snapshot(*(placed(state[name], device) for name in ("u", "params", "adjoint"))))
        for name, grad in placed(state["grad"], device).items():
            self.u[name].grad = grad

    def not_finite(self) -> list[str]:
        """What of the state holds NaN or infinity: hyperparameters by name, "the parameters" and "the carry"."""
        named = {**self.u, "the parameters": self._params, "the carry": self._carry}
        return self.spread.on_any((name for name, part in named.items() if not _is_finite(part)), named)

    def hparams_not_finite(self) -> list[str]:
        """The hyperparameters that hold NaN or infinity, on any rank."""
        return self.spread.on_any((name for name, u in self.u.items() if not _is_finite(u)), self.u)

    def _pull_back(self, hparams: Tensors, grad: Tensors) -> None:
        """dF/du, clipped, from dF/dλ."""
        for name, u in self.u.items():
            if hparams[name] is u:  # there is no constraint
                # Clipping changes it in place, and the estimator may carry it on.
                u.grad = grad[name] if self.max_grad_norm is None else grad[name].clone()
        moved = [name for name, u in self.u.items() if hparams[name] is not u]
        if moved:
            outputs, inputs, grads = ([part[name] for name in moved] for part in (hparams, self.u, grad))
            for name, grad_u in zip(moved, torch.autograd.grad(outputs, inputs, grads), strict=True):
                self.u[name].grad = grad_u
        if self.max_grad_norm is not None:
            self.spread.clip(self.u, self.max_grad_norm)


def _is_finite(part: Any) -> bool:
    return all(bool(x.isfinite().all()) for x in tree_leaves(part) if isinstance(x, Tensor))
