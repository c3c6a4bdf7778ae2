"""Compiled outer steps of a run: their batches and numbers, and the state before and after them."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from hypergrad.compile.packed import Packed
from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.autodiff import detach
from hypergrad.estimator.single_loop import SingleLoop
from hypergrad.outer.descent import Descent
from hypergrad.outer.joint_program import JointProgram, StepRow, joint_program
from hypergrad.outer.joint_step import JointState, JointStep
from hypergrad.outer.objective import Snapshot
from hypergrad.outer.optimizer_update import OptimizerUpdate
from hypergrad.problem.batch_place import BatchPlace
from hypergrad.single_loop.given import BatchKind, Placed, batches_of_move

_FIRST_MOVES = 8
"""Moves among which one must have batches like those of the first move. A judgement: an epoch has few kinds."""


class GivenMove(NamedTuple):
    """The batches of a move: their places, and their tensors in a flat list."""

    places: list[BatchPlace]
    tensors: list[Tensor]


class JointSteps:
    """The outer steps of a run whose batches are like those of step 0, as calls of a program.

    Args:
        descent: holds the state of the run.
        estimator: of the run.

    Raises:
        CannotCompileError: if the steps are no function of tensors.
    """

    def __init__(self, descent: Descent, estimator: SingleLoop) -> None:
        self.descent, self.objective, self.num_batches = descent, descent.objective, estimator.inner_steps
        update = OptimizerUpdate(descent.optimizer, self.objective.u)
        self.step = JointStep(
            self.objective.problem,
            self.objective.spaces,
            estimator.method,
            update,
            self._kinds(),
            self.objective.max_grad_norm,
        )

    def alike(self, numbers: range) -> list[GivenMove]:
        """The batches of the first of some outer steps, as long as they are of the kind that is compiled."""
        found = []
        for number in numbers:
            placed, tensors = self._batches(number), list[Tensor]()
            for kind, each in zip(self.step.kinds, placed, strict=True):
                fitting = kind.fitting(each)
                if fitting is None:
                    return found
                tensors += fitting
            found.append(GivenMove([each.place for each in placed], tensors))
        return found

    def program(self, move: GivenMove) -> JointProgram:
        """The compiled step, traced at the present state if there is none yet.

        Also raised, by what it calls: CannotCompileError if it cannot be compiled.
        """
        return joint_program(self.step, self.state(), self._row(0, self._t, self.step.update.steps_taken(), move))

    def run(self, program: JointProgram, moves: Sequence[GivenMove]) -> None:
        """Take steps with these batches."""
        t, taken, rows = self._t, self.step.update.steps_taken(), []
        for k, move in enumerate(moves):
            rows.append(self._row(k, t, taken, move))
            self.descent.step_scheduler()
        after = program.run(self.state(), rows)
        memory = self.step.method.from_compiled(after.memory)
        carry = {**self.objective.snapshot().carry, "t": t + len(rows), "memory": memory}
        self.objective.rewind(Snapshot(after.u, after.params, carry))
        self.step.update.store(after.slots, len(rows))

    def state(self) -> Packed:
        """The present `JointState`, packed.

        Raises:
            CannotCompileError: if the optimiser has no state.

        Also raised, by what it calls: CannotCompileError if the method is not to be compiled with its memory.
        """
        now, slots = self.objective.snapshot(), self.step.update.slots()
        if slots is None:
            raise CannotCompileError("the optimiser has no state after its first step")
        return Packed.of(
            JointState(now.u, slots, detach(now.params), self.step.method.to_compiled(now.carry["memory"]))
        )

    @property
    def _t(self) -> int:
        """Moves so far."""
        return self.objective.snapshot().carry["t"]

    def _row(self, k: int, t: int, taken: Sequence[int], move: GivenMove) -> StepRow:
        """The row of the step k steps ahead of move t, when the optimiser had taken `taken` steps by group."""
        numbers = self.step.numbers(t + k, [count + k for count in taken], [place.weight for place in move.places])
        return StepRow(numbers, [place.index for place in move.places], move.tensors)

    def _batches(self, number: int) -> list[Placed]:
        return batches_of_move(self.objective.problem, number * self.num_batches, self.num_batches, number)

    def _kinds(self) -> tuple[BatchKind, ...]:
        """The kinds of the batches of step 0.

        Raises:
            CannotCompileError: if some are no tensors, or no other step has batches like these.
        """
        first, *others = [[BatchKind.of(each) for each in self._batches(number)] for number in range(_FIRST_MOVES)]
        kinds = tuple(kind for kind in first if kind is not None)
        if len(kinds) < len(first):
            raise CannotCompileError("a batch holds something other than tensors, numbers and strings")
        if first not in others:
            raise CannotCompileError(
                "the batches of the steps differ in more than the values of tensors, as with dropout"
            )
        return kinds
