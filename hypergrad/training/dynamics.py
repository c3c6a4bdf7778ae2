"""Training as a dynamical system, and the pull-back through its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.solver.base import InnerSolver, State
from hypergrad.training.batches import are_equal
from hypergrad.training.states import Partial, again, as_leaves, filled, state_vjp


class Passage(Protocol):
    """Consecutive steps that were taken; their pull-back can be computed once."""

    @property
    def length(self) -> int:
        """How many steps, ≥ 1."""
        ...

    @property
    def states(self) -> State:
        """The tensors of states that it keeps, apart from those in a graph."""
        ...

    def holding(self, states: State) -> "Passage":
        """The same passage with other tensors in place of `states`."""
        ...

    def pull_back(self, adjoint: State) -> tuple[State, list[Partial]]:
        """(∂Φ/∂s)ᵀ a and (∂Φ/∂λ)ᵀ a, where Φ is all of the steps together.

        Args:
            adjoint: a = ∂F/∂s_{t+length}, shaped as the state. Eager steps pull m of them back at once, which have one
                more axis of size m in front; so have the results.

        Returns:
            ∂F/∂s_t, zero in the entries on which s_{t+length} does not depend, and the terms of dF/dλ: one for each
            step, the last one first, or one for all of them.
        """
        ...


@dataclass(frozen=True)
class Stretch:
    """A step s_{t+1} = Φ(s_t, λ, t), or a few consecutive steps, with their graph: a `Passage`.

    Attributes:
        before: s_t, leaves of the graph.
        after: s_{t+length}, its outputs.
        hparams: λ, as separate leaves for each step. So the terms of dF/dλ are summed in the same order, bit for bit,
            for any number of steps in a graph.
    """

    before: State
    after: State
    hparams: Sequence[Tensors]

    @property
    def length(self) -> int:
        return len(self.hparams)

    @property
    def states(self) -> State:
        return {}

    def holding(self, states: State) -> "Stretch":
        return self

    def pull_back(self, adjoint: State) -> tuple[State, list[Partial]]:
        """One backward pass, which frees the graph.

        For a step of gradient descent, Φ = w − lr ∇g(w, λ), that pass is the Hessian product and the mixed product in
        one.
        """
        pulled, terms = self._pull_back(adjoint, self.before)
        return filled(pulled, adjoint), terms

    def terms(self, adjoint: State) -> list[Partial]:
        """The terms of dF/dλ alone: without the Hessian product of the first step, and the others as in `pull_back`."""
        return self._pull_back(adjoint, {})[1]

    def _pull_back(self, adjoint: State, before: State) -> tuple[Mapping[str, Partial], list[Partial]]:
        wanted = {(k, name): x for k, hparams in enumerate(self.hparams) for name, x in hparams.items()}
        pulled, found = state_vjp(self.after, adjoint, before, wanted)
        terms: list[Partial] = [{name: found[k, name] for name in hp} for k, hp in enumerate(self.hparams)]
        return pulled, terms[::-1]


@dataclass(frozen=True)
class Dynamics:
    """Training at fixed λ as a dynamical system, s_{t+1} = Φ(s_t, λ, t), with t counted from where the run starts.

    Attributes:
        problem: what is trained.
        solver: how.
        hparams: λ, leaves; those require gradients for which terms of dF/dλ are wanted.
        first_step: index of the batch of step t = 0, ≥ 0.
    """

    problem: InnerProblem
    solver: InnerSolver
    hparams: Tensors
    first_step: int = 0

    def batch(self, t: int) -> Any:
        """The inner batch of step t."""
        return self.problem.inner_batch(self.first_step + t)

    def oracle(self, t: int) -> Oracle:
        """The inner loss and its gradient in step t: at λ, on its batch."""
        return Oracle(self.problem, self.hparams, self.batch(t))

    def transition(self, state: State, t: int, hparams: Tensors | None = None) -> State:
        """Φ(s_t, λ, t), with a graph if grad mode is enabled.

        Args:
            state: s_t; not changed.
            t: the number of the step.
            hparams: λ, as leaves for this step; those of the run if None.

        Also raised, by what it calls: ValueError if the solver needs the same batch at every step, and that of the next
        step differs.
        """
        hparams, batch = self.hparams if hparams is None else hparams, self.batch(t)
        if self.solver.same_batch:
            self._require_same(batch, t)
        coefficients = self.solver.coefficients_at(hparams, t, state["params"])
        return self.solver.step(Oracle(self.problem, hparams, batch), state, coefficients, t)

    def step(self, state: State, t: int) -> State:
        """The state after step t, without a graph."""
        with torch.no_grad():
            return self.transition(state, t)

    @property
    def stride(self) -> int | None:
        """Steps in one call of a compiled function, whose passage holds states; None if steps are eager."""
        return None

    def pieces(self, steps: range, length: int = 1) -> list[range]:
        """The steps in pieces of at most `length`, one for each call of `passage`."""
        return [steps[begin : begin + length] for begin in range(0, len(steps), length)]

    def advance(self, state: State, steps: range) -> State:
        """The state after some steps, without a graph."""
        for t in steps:
            state = self.step(state, t)
        return state

    def passage(self, state: State, steps: range) -> tuple[State, Passage]:
        """The state after a piece of steps, and the way back through it."""
        stretch = self.linearize(state, steps.start, len(steps))
        return stretch.after, stretch

    def linearize(self, state: State, t: int, length: int = 1) -> Stretch:
        """Step t, or `length` steps from there, with their graph.

        Like `step`, it is a pure function of the state, λ and t; its pull-back is a pure function of the adjoint too.
        """
        before = after = as_leaves(state)
        hparams = [self.hparams, *(again(self.hparams) for _ in range(length - 1))]
        with torch.enable_grad():
            for k, hp in enumerate(hparams):
                after = self.transition(after, t + k, hp)
        return Stretch(before, after, hparams)

    def _require_same(self, batch: Any, t: int) -> None:
        step = self.first_step + t
        differs = not are_equal(batch, self.batch(t + 1))
        if self.problem.peers.most(int(differs)):  # maybe in the part of another process only
            raise ValueError(
                f"{type(self.solver).__name__} needs the same inner loss at every step, but "
                f"{type(self.problem).__name__}.inner_batch({step}) and inner_batch({step + 1}) differ. Return all of "
                "the data at every step, or train on mini-batches with Momentum or Adam."
            )
