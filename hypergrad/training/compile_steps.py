"""Compiling the steps of a run: once for a problem and a solver, and checked against eager steps."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor

from hypergrad.compile.cache import Identity, WeakCache
from hypergrad.compile.tracing import CannotCompileError, in_one_line
from hypergrad.core.autodiff import detach
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.compiled_dynamics import CompiledDynamics
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.pieces import first_piece, kinds
from hypergrad.training.program import Program, compile_nested, write
from hypergrad.training.states import entries
from hypergrad.training.step_inputs import select_step, step_inputs

MOST_STEPS = 10
"""The most steps in one call of a compiled function: more save little time per call, and compile for longer."""

CHANGED = "a step differs from the compiled one; has data of the problem changed?"
"""Why a compiled program is not used again."""

_PROGRAMS = WeakCache[Program]()
"""Programs by problem, and by everything else on which they depend."""


def compile_steps(
    dynamics: Dynamics, start: State, steps: range, most: int = MOST_STEPS, *, pull_back: bool = True
) -> tuple[Dynamics, str]:
    """The same dynamics with compiled steps, or `dynamics` itself if they cannot be compiled.

    The first piece and its pull-back are checked against eager ones when they are compiled. The first step is checked
    again in each run, to notice data that have changed since.

    Args:
        dynamics: what a step does.
        start: where training starts.
        steps: the steps of the run, at least one.
        most: the most steps in one call, ≥ 1.
        pull_back: whether to compile the pull-back too.

    Returns:
        The dynamics, and a remark of one line: what was compiled, or why nothing was.
    """  # noqa: DOC501 (it is caught)
    try:
        piece, batches = first_piece(dynamics, steps, most)
        key = (Identity(dynamics.solver), pull_back, len(piece), repr(batches), repr(kinds(start, dynamics.hparams)))
        program = _PROGRAMS.get(dynamics.problem, key, lambda: _program(dynamics, start, piece, batches, pull_back))
        if not _begins_alike(program, dynamics, start, piece):
            _PROGRAMS.refuse(dynamics.problem, key, CHANGED)
            raise CannotCompileError(CHANGED)
    except CannotCompileError as error:
        return dynamics, f"not compiled: {error}"
    return _with_program(dynamics, program), f"compiled, {len(piece)} steps in a call"


def _begins_alike(program: Program, dynamics: Dynamics, start: State, piece: range) -> bool:
    """Whether the first step of a run agrees with that of the program."""
    inputs = select_step(program.batches, step_inputs(dynamics, program.batches, piece[:1]), 0)
    step = program.step(program.in_order(start), detach(dynamics.hparams), inputs)
    wanted = dynamics.step(start, piece.start)
    return is_near(entries(step), entries(program.in_order(wanted)), entries(program.in_order(start)))


def _program(dynamics: Dynamics, start: State, piece: range, batches: Batches, pull_back: bool) -> Program:
    """The program of a piece, compiled.

    Raises:
        CannotCompileError: if it cannot be compiled.
    """
    try:
        program = write(dynamics, start, piece, batches, pull_back)
        given = (detach(dynamics.hparams), step_inputs(dynamics, batches, piece))
        with torch.no_grad():
            _, read = program.forward(start, *given)
            program = replace(program, forward=compile_nested(program.forward, start, *given))
            if program.backward is not None:
                program = replace(program, backward=compile_nested(program.backward, read, _random_like(start), *given))
        _require_agreement(_with_program(dynamics, program), dynamics, start, piece)
    except CannotCompileError:
        raise
    except Exception as error:  # a trace of a user's own model may raise anything at other values
        raise CannotCompileError(in_one_line(error)) from error
    return program


def _with_program(dynamics: Dynamics, program: Program) -> CompiledDynamics:
    return CompiledDynamics(**{f.name: getattr(dynamics, f.name) for f in fields(Dynamics)}, program=program)


def _require_agreement(ready: CompiledDynamics, dynamics: Dynamics, start: State, piece: range) -> None:
    """Check a piece, and its pull-back if it has one, against eager steps.

    Raises:
        CannotCompileError: if they differ by more than rounding explains.
    """
    states, in_order = [start], ready.program.in_order
    for t in piece:
        states.append(dynamics.step(states[-1], t))
    end = in_order(states.pop())
    after, passage = ready.passage(start, piece)
    if not is_near(entries(after), entries(end), entries(in_order(start))):
        raise CannotCompileError("compiled steps give another result")
    if ready.program.backward is None:
        return
    adjoint = _random_like(end)
    pulled, (terms,) = passage.pull_back(adjoint)
    totals: dict[str, Tensor] = {}
    for t in reversed(piece):
        adjoint, (term,) = dynamics.linearize(states.pop(), t).pull_back(adjoint)
        totals |= {name: totals.get(name, 0) + x for name, x in term.items() if x is not None}
    found = [*entries(pulled), *(terms[name] for name in totals)]
    if not is_near(found, [*entries(in_order(adjoint)), *totals.values()]):
        raise CannotCompileError("the pull-back of compiled steps differs from the eager one")


def _random_like(state: State) -> State:
    """Normal random numbers, shaped as a state."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return {group: {name: draw(x.shape).to(x) for name, x in tensors.items()} for group, tensors in state.items()}


def is_near(found: Sequence[Tensor | None], wanted: Sequence[Tensor], origin: Sequence[Tensor] | None = None) -> bool:
    """Whether ‖x − y‖ ≤ √ε ‖y − origin‖ for each of the tensors, up to the rounding of y."""
    norms = [torch.linalg.vector_norm(y).item() for y in wanted]
    for k, (x, y) in enumerate(zip(found, wanted, strict=True)):
        eps = torch.finfo(y.dtype).eps
        moved = norms[k] if origin is None else torch.linalg.vector_norm(y - origin[k]).item()
        rounding = 100 * eps * (max(norms) if origin is None else norms[k])
        if x is None or not torch.linalg.vector_norm(x - y).item() <= eps**0.5 * moved + rounding:
            return False
    return True
