"""Training whose steps are compiled, several in a call."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from hypergrad.compile.loop import Column, Passed
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics, Passage
from hypergrad.training.program import BackwardProgram, ForwardProgram, contiguous
from hypergrad.training.states import Partial, state_vjp
from hypergrad.training.step_inputs import StepTable

_MOST_BYTES = 2**26
"""The most bytes of batches that a run keeps for its way back."""


@dataclass(frozen=True)
class CompiledDynamics(Dynamics):
    """The same dynamics, up to `length` steps in a call if their batches are alike, otherwise one by one.

    Attributes:
        length: the most steps in a call.
        forward: a step, compiled.
        backward: its pull-back, compiled; None if the run is not differentiated.
        table: of at least all steps of the run.
    """

    length: int = field(kw_only=True)
    forward: ForwardProgram = field(kw_only=True)
    backward: BackwardProgram | None = field(kw_only=True)
    table: StepTable = field(kw_only=True)
    _kept: dict[int, list[Tensor] | None] = field(default_factory=dict, repr=False)

    @property
    def stride(self) -> int | None:
        return self.length

    def pieces(self, steps: range, length: int = 1) -> list[range]:
        """The steps in pieces for one call each; the shorter ones come as early as possible."""
        pieces, stop = [], len(steps)
        while stop > 0:
            begin = stop - 1
            if self.batch_tensors(steps[begin]) is not None:
                while begin > max(stop - self.length, 0) and self.batch_tensors(steps[begin - 1]) is not None:
                    begin -= 1
            pieces.append(steps[begin:stop])
            stop = begin
        return pieces[::-1]

    @torch.no_grad()
    def advance(self, state: State, steps: range) -> State:
        last: list[Tensor] | None = None  # in place of the state, as long as pieces are compiled
        for piece in self.pieces(steps):
            if self.batch_tensors(piece.start) is None:
                state = self.step(
                    state if last is None else self.forward.state(self.forward.loop.own(last)), piece.start
                )
                last = None
            else:
                last = self._run(self.forward.tensors(state) if last is None else last, piece, ()).carried
        return state if last is None else self.forward.state(self.forward.loop.own(last))

    @torch.no_grad()
    def passage(self, state: State, steps: range) -> tuple[State, Passage]:
        if self.backward is None or any(self.batch_tensors(t) is None for t in steps):
            return self.advance(state, steps), _EagerPassage(self, steps, state)
        own = self.forward.loop.own
        end, read, _ = self._run(self.forward.tensors(state), steps, self.backward.reads)
        return self.forward.state(own(end)), _CompiledPassage(self, self.backward, steps, own(read))

    def batch_tensors(self, t: int) -> list[Tensor] | None:
        """The tensors of the batch of step t; None if it is not of the kind that the compiled step uses."""
        if getattr(self.problem.inner_batch, "__func__", None) is InnerProblem.inner_batch:  # None at every step
            return []
        if t in self._kept:
            return self._kept[t]
        batch = self.batch(t)
        found = self.forward.batches.tensors(batch) if Batches.of(batch) == self.forward.batches else None
        if sum(x.nbytes for x in found or ()) * (len(self._kept) + 1) <= _MOST_BYTES:
            self._kept[t] = found
        return found

    def columns(self, steps: range) -> list[Column]:
        """The inputs of the compiled step, by column."""
        batches = [self.batch_tensors(t) or [] for t in steps]
        return [*self.table.columns(self.hparams, steps), *map(list, zip(*batches, strict=True))]

    def _run(self, state: list[Tensor], steps: range, keep: tuple[int, ...]) -> Passed:
        return self.forward.loop.run(self._shared, state, self.columns(steps), keep)

    @cached_property
    def _shared(self) -> list[Tensor]:
        return self.forward.loop.body.prepare(*contiguous(self.hparams))

    @cached_property
    def backward_shared(self) -> list[Tensor]:
        """What all pull-backs of the run share."""
        assert self.backward is not None  # a run that is differentiated has one
        return self.backward.loop.body.prepare(*contiguous(self.hparams))


@dataclass(frozen=True)
class _CompiledPassage:
    """A compiled piece, with the tensors of its states that the pull-back reads, stacked."""

    dynamics: CompiledDynamics
    program: BackwardProgram
    steps: range
    read: list[Tensor]

    @property
    def length(self) -> int:
        return len(self.steps)

    @property
    def states(self) -> State:
        return {"read": {str(k): x for k, x in enumerate(self.read)}}

    def holding(self, states: State) -> "_CompiledPassage":
        return replace(self, read=[x for tensors in states.values() for x in tensors.values()])

    def pull_back(self, adjoint: State) -> tuple[State, list[Partial]]:
        dynamics, hparams, program, forward = self.dynamics, self.dynamics.hparams, self.program, self.dynamics.forward
        with torch.no_grad():
            begin = [*forward.tensors(adjoint), *(torch.zeros_like(hparams[name]) for name in program.terms)]
            begin = [x.contiguous() for x in begin]
            columns = [*self.read, *dynamics.columns(self.steps)]
            carried, _, slopes = program.loop.run(dynamics.backward_shared, begin, columns)
            carried, slopes = program.loop.own(carried), program.loop.own(slopes)
        count = len(carried) - len(program.terms)
        adjoint, partial = forward.state(carried[:count]), dict(zip(program.terms, carried[count:], strict=True))
        if not slopes:
            return adjoint, [{name: partial.get(name) for name in hparams}]
        with torch.enable_grad():
            values = dynamics.table.coefficients(hparams, self.steps)
        found = dict(zip(program.slopes, slopes, strict=True))
        _, by_coefficients = state_vjp({"": {name: values[name] for name in found}}, {"": found}, {}, hparams)
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
