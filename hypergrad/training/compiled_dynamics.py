"""Training whose steps run through torch.compile, several at a time."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypergrad.core.autodiff import detach
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics, Passage
from hypergrad.training.program import Program
from hypergrad.training.states import Partial, state_vjp
from hypergrad.training.step_inputs import stacked_coefficients, step_inputs


@dataclass(frozen=True)
class CompiledDynamics(Dynamics):
    """The same dynamics, `program.length` steps in a call if their batches are alike, otherwise one by one.

    Attributes:
        program: the steps and their pull-back, compiled.
    """

    program: Program = field(kw_only=True)

    @property
    def stride(self) -> int | None:
        return self.program.length

    def pieces(self, steps: range, length: int = 1) -> list[range]:
        """The steps in pieces of `program.length` steps or of one; the pieces of one come as early as possible."""
        pieces, stop = [], len(steps)
        while stop > 0:
            piece = steps[max(stop - self.program.length, 0) : stop]
            if not self._fits(piece):
                piece = steps[stop - 1 : stop]
            pieces.append(piece)
            stop -= len(piece)
        return pieces[::-1]

    def advance(self, state: State, steps: range) -> State:
        for piece in self.pieces(steps):
            state = self._run(state, piece)[0] if len(piece) == self.program.length else self.step(state, piece.start)
        return state

    def passage(self, state: State, steps: range) -> tuple[State, Passage]:
        if len(steps) == self.program.length:
            after, read = self._run(state, steps)
            return after, _CompiledPassage(self, steps, read)
        return self.advance(state, steps), _EagerPassage(self, steps, state)

    def _fits(self, steps: range) -> bool:
        if len(steps) != self.program.length:
            return False
        if getattr(self.problem.inner_batch, "__func__", None) is InnerProblem.inner_batch:  # None at every step
            return True
        return Batches.of([self.batch(t) for t in steps]) == self.program.batches

    @torch.no_grad()
    def _run(self, state: State, steps: range) -> tuple[State, State]:
        """The state after a compiled piece, and what the pull-back reads of the states before each step."""
        inputs = step_inputs(self, self.program.batches, steps)
        return self.program.forward(self.program.in_order(state), detach(self.hparams), inputs)


@dataclass(frozen=True)
class _CompiledPassage:
    """A compiled piece, with the stacked tensors of its states that the pull-back reads."""

    dynamics: CompiledDynamics
    steps: range
    read: State

    @property
    def length(self) -> int:
        return len(self.steps)

    @property
    def states(self) -> State:
        return self.read

    def holding(self, states: State) -> "_CompiledPassage":
        return replace(self, read=states)

    def pull_back(self, adjoint: State) -> tuple[State, list[Partial]]:
        dynamics, hparams = self.dynamics, self.dynamics.hparams
        program = dynamics.program
        assert program.backward is not None  # a run that is differentiated has one
        with torch.no_grad():
            inputs = step_inputs(dynamics, program.batches, self.steps)
            adjoint, partial, slopes = program.backward(self.read, program.in_order(adjoint), detach(hparams), inputs)
        if not slopes:
            return adjoint, [{name: partial.get(name) for name in hparams}]
        with torch.enable_grad():
            values = stacked_coefficients(dynamics, self.steps)
        _, by_coefficients = state_vjp({"": {name: values[name] for name in slopes}}, {"": slopes}, {}, hparams)
        return adjoint, [{name: _sum(partial.get(name), by_coefficients[name]) for name in hparams}]


@dataclass(frozen=True)
class _EagerPassage:
    """A piece whose steps are repeated, with their graph, when it is pulled back."""

    dynamics: Dynamics
    steps: range
    state: State

    @property
    def length(self) -> int:
        return len(self.steps)

    @property
    def states(self) -> State:
        return self.state

    def holding(self, states: State) -> "_EagerPassage":
        return replace(self, state=states)

    def pull_back(self, adjoint: State) -> tuple[State, list[Partial]]:
        return self.dynamics.linearize(self.state, self.steps.start, self.length).pull_back(adjoint)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
