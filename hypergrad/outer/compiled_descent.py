"""Outer steps of single-loop methods between two records, several in one compiled call."""

import copy
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch

from hypergrad.callback.base import Record
from hypergrad.compile.packed import Packed
from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.cost import Spent, charging, spend
from hypergrad.core.errors import NotCompiledWarning
from hypergrad.estimator.base import HypergradEstimator, Hypergradient
from hypergrad.estimator.single_loop import SingleLoop
from hypergrad.outer.descent import Descent
from hypergrad.outer.joint_program import KIND, PROGRAMS, JointProgram, key_of
from hypergrad.outer.joint_steps import JointSteps
from hypergrad.problem.distributed.sharing import require_one_process
from hypergrad.problem.precision import epsilon_of
from hypergrad.training.compile_choice import Ledger
from hypergrad.training.compile_steps import CHANGED, is_near


@dataclass(frozen=True)
class _Compiled:
    """What is compiled for a run.

    Attributes:
        steps: its calls.
        program: the compiled step.
        found: the reports of a step.
        spent: what a step computes.
    """

    steps: JointSteps
    program: JointProgram
    found: Hypergradient
    spent: Spent


class CompiledDescent(Descent):
    """As `Descent`, but the steps without a record are compiled, if their batches are like those of step 0.

    The first of them is taken eagerly too, and compared. Which steps are compiled does not depend on where a resumed
    run began, so that it goes on with the same bits; with `compile="auto"` it depends on the clock.
    """

    _compiled: _Compiled | None = None
    _is_refused = False
    _remark = ""
    _ledger: Ledger | None = None

    def take(self, steps: range) -> tuple[Hypergradient, int]:
        ready = self._prepared(steps)
        alike = [] if ready is None else ready.steps.alike(steps[: ready.program.most])
        if ready is None or not alike:
            return self._take_one(steps)
        count = ready.program.length(len(alike))
        ready.steps.run(ready.program, alike[:count])
        spend(gradients=count * ready.spent.gradients, matvecs=count * ready.spent.matvecs)
        return ready.found, count

    def _evaluate(self, step: int) -> Record:
        record = super()._evaluate(step)
        remark = self._remark + ("" if self._compiled is None else self._compiled.program.loop.remark)
        return replace(record, stats={**record.stats, "training_remark": remark}) if remark else record

    def _take_one(self, steps: range) -> tuple[Hypergradient, int]:
        """An eager step; the seconds of the second one are noted, as the first one loads what is loaded once."""
        begin = time.perf_counter()
        taken = super().take(steps)
        if self._ledger is None:
            self._ledger = Ledger(KIND, next(iter(self.objective.u.values())).device.type, 0.0)
        elif self._ledger.steps == 1:
            self._ledger.seconds = time.perf_counter() - begin
        self._ledger.add(1)
        return taken

    def _prepared(self, steps: range) -> _Compiled | None:
        """What is compiled, made as soon as that pays; None if nothing is."""
        estimator = self.objective.estimator
        assert isinstance(estimator, SingleLoop)  # by `compiles`
        if self._compiled is not None or self._is_refused:
            return self._compiled
        try:
            require_one_process(self.objective.problem)
            if self._waits(estimator, len(steps)):
                return None
            with charging(Spent()):
                self._compiled = self._made(JointSteps(self, estimator), steps[:1])
        except CannotCompileError as error:
            self._is_refused, self._remark = True, f"not compiled: {error}"
            warnings.warn(
                f"The steps of {type(estimator.method).__name__} are not compiled, and run as they are: {error}.",
                NotCompiledWarning,
                stacklevel=2,
            )
        return self._compiled

    def _waits(self, estimator: SingleLoop, to_come: int) -> bool:
        """Whether it does not pay yet, with `compile="auto"`."""
        if estimator.compile != "auto":
            return False
        if self._ledger is None or self._ledger.steps < 2:
            return True
        self._remark = self._ledger.refuse(to_come)
        return self._remark != ""

    def _made(self, steps: JointSteps, first: range) -> _Compiled | None:
        """The compiled step, after a comparison in outer step `first`; None if that has batches of another kind.

        Raises:
            CannotCompileError: if there is none, or it differs from the eager step.
        """
        moves = steps.alike(first)
        if not moves:
            return None
        start, program, spent = steps.state(), steps.program(moves[0]), Spent()
        before = self.objective.state(), self.state()
        with charging(spent):
            found, _ = super().take(first)
        wanted = steps.state()
        self._go_back(*before)
        steps.run(program, moves)
        if not _are_near(steps.state(), wanted, start, epsilon=epsilon_of(self.objective.problem)):
            PROGRAMS.refuse(self.objective.problem, key_of(steps.step, start), CHANGED)
            self._go_back(*before)
            raise CannotCompileError(CHANGED)
        self._go_back(*before)
        self._remark = f"compiled, up to {program.most} steps in a call"
        return _Compiled(steps, program, replace(found, grad={}, params={}, carry=None), spent)

    def _go_back(self, objective: dict[str, Any], descent: dict[str, Any]) -> None:
        self.objective.restore(objective)
        self.restore(copy.deepcopy(descent))  # an optimiser takes tensors over, and changes them


def compiles(estimator: HypergradEstimator, record_every: int) -> bool:
    """Whether the steps of a run without a record are to be compiled; warns if they are, but each has a record."""
    if not isinstance(estimator, SingleLoop) or not estimator.compile:
        return False
    if record_every == 1:
        warnings.warn(
            "Only outer steps without a record are compiled, and with record_every = 1 there are none: set "
            "record_every to 100, for example.",
            NotCompiledWarning,
            stacklevel=2,
        )
    return record_every > 1


def _are_near(found: Packed, wanted: Packed, origin: Packed, *, epsilon: float) -> bool:
    """Whether two states, reached from a third one, agree up to rounding."""
    rows = list(zip(found.tensors, wanted.tensors, origin.tensors, strict=True))
    real = [row for row in rows if row[1].is_floating_point()]
    whole = [row for row in rows if not row[1].is_floating_point()]
    return is_near(*map(list, zip(*real, strict=True)), epsilon=epsilon) and all(torch.equal(x, y) for x, y, _ in whole)
