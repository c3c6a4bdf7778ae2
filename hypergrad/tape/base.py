"""The promise of a tape: a training run that can be visited backwards."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, detach
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, State

Partial = Mapping[str, Tensor | None]
"""A term of dF/dλ by name; None where nothing in it depends on a hyperparameter."""


@dataclass(frozen=True)
class Stretch:
    """A step s_{t+1} = Φ(s_t, λ, t) with its graph, or a few steps in a row with theirs.

    Attributes:
        before: s_t, leaves of the graph.
        after: s_{t+length}, its outputs.
        hparams: λ, leaves too.
        length: how many steps, ≥ 1.
    """

    before: State
    after: State
    hparams: Tensors
    length: int = 1

    def pull_back(self, adjoint: State) -> tuple[State, Partial]:
        """(∂Φ/∂s)ᵀ a and (∂Φ/∂λ)ᵀ a in one backward pass, which frees the graph.

        For a step of gradient descent, Φ = w − lr ∇g(w, λ), that pass is Hessian product and mixed product in one.

        Args:
            adjoint: a = ∂F/∂s_{t+length}, shaped as the state.

        Returns:
            ∂F/∂s_t, zero where s_{t+1} does not depend on an entry of the state, and this step's term of dF/dλ.
        """
        pulled, partial = pull(self.after, adjoint, self.before, self.hparams)
        return filled(pulled, self.before), partial


@dataclass(frozen=True)
class Dynamics:
    """Training at fixed λ as a dynamical system, s_{t+1} = Φ(s_t, λ, t).

    Attributes:
        problem: what is trained.
        solver: how.
        hparams: λ, leaves that require gradients.
    """

    problem: InnerProblem
    solver: InnerSolver
    hparams: Tensors

    def step(self, state: State, t: int) -> State:
        """The state after step t, without a graph."""
        with torch.no_grad():
            return self.solver.step(self.problem, state, self.hparams, t)

    def linearise(self, state: State, t: int, length: int = 1) -> Stretch:
        """Step t, or `length` steps from there, with their graph.

        Like `step` it is a pure function of the state, λ and t; with its pull-back it is one of the adjoint too.
        """
        before = after = free(state)
        with torch.enable_grad():
            for k in range(length):
                after = self.solver.step(self.problem, after, self.hparams, t + k)
        return Stretch(before, after, self.hparams, length)


@dataclass(frozen=True)
class Trajectory:
    """A training run that was made, and the way back through it, which can be taken once.

    Attributes:
        end: the state after the last step, without a graph.
        backwards: the steps with their graphs, singly or in stretches, from the last to the first.
    """

    end: State
    backwards: Iterator[Stretch]

    def pull_back(self, adjoint: State) -> Iterator[tuple[State, Partial, int]]:
        """The adjoint recursion of reverse-mode differentiation, from the last step to the first.

        a_t = (∂Φ/∂s)ᵀ a_{t+1}, and dF/dλ is the sum over the steps of (∂Φ/∂λ)ᵀ a_{t+1}.

        Args:
            adjoint: a_T = ∂F/∂s_T, shaped as the state.

        Yields:
            a_t, the term of dF/dλ, and of how many steps it is.
        """
        for stretch in self.backwards:
            adjoint, partial = stretch.pull_back(adjoint)
            length = stretch.length
            del stretch  # else its graph would live beside the next one
            yield adjoint, partial, length


class Tape(ABC):
    """How the states of a training run come back, from the last to the first.

    Every tape gives the same hypergradient, because the recursion is one and the same (`Trajectory.pull_back`); they
    differ in memory and in how often a gradient is evaluated.
    """

    @abstractmethod
    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        """Train.

        Args:
            dynamics: what a step does.
            state: where the first step starts; not changed.
            steps: the indices t of the steps, at least one.

        Returns:
            The end of the run, with the way back.

        Raises:
            HypergradError: if this tape cannot come back through this run.
        """


def pull(outputs: State, cotangents: State, state: State, hparams: Tensors) -> tuple[Mapping[str, Partial], Partial]:
    """(∂outputs/∂s)ᵀ c and (∂outputs/∂λ)ᵀ c, shaped as s and λ, with None where nothing depends on an entry."""
    reached = [(group, name) for group in outputs for name, x in outputs[group].items() if x.requires_grad]
    inputs = [x for x in entries(state) if x.requires_grad]
    wanted = (*inputs, *hparams.values())
    grads: Sequence[Tensor | None] = (None,) * len(wanted)
    if reached:
        ys, cs = ([tensors[group][name] for group, name in reached] for tensors in (outputs, cotangents))
        grads = torch.autograd.grad(ys, wanted, cs, allow_unused=True)
    found = iter(grads)
    adjoint = {
        group: {name: next(found) if x.requires_grad else None for name, x in tensors.items()}
        for group, tensors in state.items()
    }
    return adjoint, dict(zip(hparams, found, strict=True))


def filled(adjoint: Mapping[str, Partial], state: State) -> State:
    """The adjoint of a state with zeros for None."""
    return {
        group: {name: torch.zeros_like(state[group][name]) if g is None else g for name, g in grads.items()}
        for group, grads in adjoint.items()
    }


def entries(state: State) -> list[Tensor]:
    """The tensors of a state, in order."""
    return [x for tensors in state.values() for x in tensors.values()]


def free(state: State) -> State:
    """The same state as new leaves, which require gradients where they are no integers."""
    return {
        group: {name: x.detach().requires_grad_(x.is_floating_point()) for name, x in tensors.items()}
        for group, tensors in state.items()
    }


def detached(state: State) -> State:
    """The same state outside any graph."""
    return {group: detach(tensors) for group, tensors in state.items()}
