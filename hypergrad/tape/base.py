"""The promise of a tape: a training run that can be visited backwards."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hypergrad.solver.base import State
from hypergrad.training.dynamics import Dynamics, Passage
from hypergrad.training.states import Partial, detached, entries


@dataclass(frozen=True)
class Footprint:
    """What a step of training takes.

    Attributes:
        start: the state from which it was measured.
        graph: bytes that the graph of a step keeps alive, without what all steps share, such as the train data.
    """

    start: State
    graph: int

    @property
    def state(self) -> int:
        """Bytes of a state."""
        return sum(x.numel() * x.element_size() for x in entries(self.start))


@dataclass(frozen=True)
class TapeCost:
    """What training and the way back take.

    Attributes:
        memory: bytes of the trajectory and of the graphs that live at a time.
        gradients: evaluations of the inner gradient; the Hessian products, one a step, are the same for all tapes.
    """

    memory: int
    gradients: int


@dataclass(frozen=True)
class Trajectory:
    """A training run that was made, and the way back through it, which can be taken once.

    Attributes:
        end: the state after the last step, without a graph.
        backwards: the way back through the steps, singly or several at a time, from the last to the first.
    """

    end: State
    backwards: Iterator[Passage]

    @classmethod
    def kept(cls, dynamics: Dynamics, state: State, pieces: list[range]) -> "Trajectory":
        """A run from `state` that keeps the passages through all pieces."""
        passages: list[Passage] = []
        for piece in pieces:
            state, passage = dynamics.passage(state, piece)
            passages.append(passage)
        return cls(detached(state), (passages.pop() for _ in pieces))

    def pull_back(self, adjoint: State) -> Iterator[tuple[State, list[Partial], int]]:
        """The adjoint recursion of reverse-mode differentiation, from the last step to the first.

        a_t = (∂Φ/∂s)ᵀ a_{t+1}, and dF/dλ is the sum over the steps of (∂Φ/∂λ)ᵀ a_{t+1}.

        Args:
            adjoint: a_T = ∂F/∂s_T, shaped as the state.

        Yields:
            a_t, the terms of dF/dλ, the last one first, and of how many steps each of them is.
        """
        for passage in self.backwards:
            adjoint, terms = passage.pull_back(adjoint)
            steps = passage.length // len(terms)
            del passage  # else its graph would live beside the next one
            yield adjoint, terms, steps


class Tape(ABC):
    """How the states of a training run come back, from the last to the first.

    Every tape gives the same hypergradient, because the recursion is one and the same (`Trajectory.pull_back`); they
    differ in memory and in how often a gradient is evaluated. Those that take the eager steps of the dynamics agree to
    the bit where PyTorch computes a gradient alike with and without a graph, as it does but for `SiLU` and its kind.
    """

    takes_compiled: ClassVar[bool] = True
    """Whether it takes the steps of the dynamics, which may be compiled, and not steps of its own."""

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

    @abstractmethod
    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost | None:
        """What `record` and the way back would take, or None where this tape does not serve the solver."""
