"""The promise of a tape: a training run that can be visited backwards."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from hypergrad.solver.base import State
from hypergrad.training.dynamics import Dynamics, Passage, Stretch
from hypergrad.training.states import Partial, detached, entries


@dataclass(frozen=True)
class Footprint:
    """The memory of one training step.

    Attributes:
        start: the state from which it was measured.
        graph: bytes that the graph of a step keeps alive, without those that all steps share, such as the train data.
    """

    start: State
    graph: int

    @property
    def state(self) -> int:
        """Bytes of a state."""
        return sum(x.numel() * x.element_size() for x in entries(self.start))


@dataclass(frozen=True)
class TapeCost:
    """The cost of training and of the way back.

    Attributes:
        memory: bytes of the trajectory and of the graphs that exist at the same time.
        gradients: evaluations of the inner gradient. All tapes need the same Hessian products, one per step.
        offloaded: bytes of states that are moved out of that memory, to the CPU or a disk.
    """

    memory: int
    gradients: int
    offloaded: int = 0


@dataclass(frozen=True)
class Trajectory:
    """A finished training run, and the way back through it, which can be used once.

    Attributes:
        end: the state after the last step, without a graph.
        backwards: the passages through the steps, one or several steps each, from the last to the first.
        close: gives back what is kept outside memory, if the way back is not used to its end.
    """

    end: State
    backwards: Iterator[Passage]
    close: Callable[[], None] = lambda: None

    @classmethod
    def kept(cls, dynamics: Dynamics, state: State, pieces: list[range]) -> "Trajectory":
        """A run from `state` that keeps the passage through each piece."""
        passages: list[Passage] = []
        for piece in pieces:
            state, passage = dynamics.passage(state, piece)
            passages.append(passage)
        return cls(detached(state), (passages.pop() for _ in pieces))

    def pull_back(
        self, adjoint: State, to_terms: int | None = None
    ) -> Iterator[tuple[State | None, list[Partial], int]]:
        """The adjoint recursion of reverse-mode differentiation, from the last step to the first.

        a_t = (∂Φ/∂s)ᵀ a_{t+1}, and dF/dλ is the sum over the steps of (∂Φ/∂λ)ᵀ a_{t+1}.

        Args:
            adjoint: a_T = ∂F/∂s_T, shaped as the state.
            to_terms: the number of steps of the run, if only the terms of the first ones are needed, and not a₀.

        Yields:
            a_t, the terms of dF/dλ, the last one first, and the number of steps in each term; None for an a₀ that is
            not needed, which saves a Hessian product.
        """
        for passage in self.backwards:
            if to_terms is not None:
                to_terms -= passage.length
            before = None
            if to_terms == 0 and isinstance(passage, Stretch):
                terms = passage.terms(adjoint)
            else:
                before, terms = passage.pull_back(adjoint)
                adjoint = before
            steps = passage.length // len(terms)
            del passage  # otherwise its graph and the next one would exist at the same time
            yield before, terms, steps


class Tape(ABC):
    """How the states of a training run are recovered, from the last to the first.

    Every tape gives the same hypergradient, because all use the same recursion (`Trajectory.pull_back`). They differ in
    memory and in how often a gradient is evaluated. Those that use the eager steps of the dynamics agree bit for bit if
    PyTorch computes the same gradient with and without a graph. It does, except for `SiLU` and similar operations, and
    for attention and recurrent layers, whose first sweep runs on fused kernels; see docs/models.md.
    """

    takes_compiled: ClassVar[bool] = True
    """Whether it uses the steps of the dynamics, which may be compiled, and not steps of its own."""

    @abstractmethod
    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        """Train.

        Args:
            dynamics: what a step does.
            state: the state before the first step; not changed.
            steps: the indices t of the steps, at least one.

        Returns:
            The end of the run, with the way back.

        Raises:
            HypergradError: if this tape cannot go back through this run.
        """

    @abstractmethod
    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost | None:
        """The cost of `record` and of the way back; None if this tape does not serve the solver."""
