"""Compiling the steps of a run: once for a problem and a solver, and checked against the steps as they are."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from hypergrad.compile.torch_compile import compile_checked
from hypergrad.compile.tracing import CannotCompileError, Nested, in_one_line
from hypergrad.core.autodiff import Tensors, detach
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, State
from hypergrad.training.batches import Batches
from hypergrad.training.compiled import CompiledDynamics
from hypergrad.training.dynamics import Dynamics, entries
from hypergrad.training.program import Program, at, told, write

MOST_STEPS = 10
"""In one call of a compiled function: more save little of what a call costs, and take longer to compile."""

_PROGRAMS: "WeakKeyDictionary[InnerProblem, dict[Any, tuple[InnerSolver, Program | str]]]" = WeakKeyDictionary()
"""Programs by problem and by what else they hold for; the reason why, where there is none.

The solver is kept beside them, because its id is a part of the key."""


def compile_steps(
    dynamics: Dynamics, start: State, steps: range, most: int = MOST_STEPS, *, pull_back: bool = True
) -> tuple[Dynamics, str]:
    """The same dynamics with compiled steps, or itself where they cannot be compiled.

    The first piece and its pull-back are held against eager ones when they are compiled, and the first step again in
    each run, which notices data that have changed since.

    Args:
        dynamics: what a step does.
        start: where training starts.
        steps: the steps to be compiled for, at least one.
        most: steps in one call, ≥ 1.
        pull_back: whether it is wanted too.

    Returns:
        The dynamics, and what was done, or not done and why, in one line.
    """
    known = _PROGRAMS.setdefault(dynamics.problem, {})
    try:
        piece, batches = first_piece(dynamics, steps, most)
        key = (id(dynamics.solver), pull_back, len(piece), repr(batches), repr(kinds(start, dynamics.hparams)))
        if key not in known:
            known[key] = (dynamics.solver, _program(dynamics, start, piece, batches, pull_back))
        program = known[key][1]
        if isinstance(program, str):
            return dynamics, f"not compiled: {program}"
        now = at(batches, told(dynamics, batches, piece[:1]), 0)
        step = program.step(program.in_order(start), detach(dynamics.hparams), now)
    except CannotCompileError as error:
        return dynamics, f"not compiled: {error}"
    wanted = dynamics.step(start, piece.start)
    if not is_near(entries(step), entries(program.in_order(wanted)), entries(program.in_order(start))):
        reason = "a step is not the one that was compiled; has data of the problem changed?"
        known[key] = (dynamics.solver, reason)
        return dynamics, f"not compiled: {reason}"
    return _with(program, dynamics), f"compiled, {len(piece)} steps in a call"


def first_piece(dynamics: Dynamics, steps: range, most: int) -> tuple[range, Batches]:
    """The first steps to go into one call.

    Raises:
        CannotCompileError: if no two steps in a row go together.
    """
    length = _length(len(steps), most)
    window = steps[: 2 * length]
    each = [Batches.of([dynamics.batch(t)]) for t in window]
    if None in each:
        raise CannotCompileError("inner_batch returns something other than tensors, numbers and strings")
    begins = [k for k in range(len(window)) if k == 0 or each[k] != each[k - 1]]
    alike = [window[begin:end] for begin, end in zip(begins, [*begins[1:], len(window)], strict=True)]
    piece = max(alike, key=len)[:length]
    if len(piece) < 2:
        raise CannotCompileError(
            "a run of one step"
            if len(steps) == 1
            else "the batches of two steps in a row differ in more than the values of tensors, as with dropout"
        )
    batches = Batches.of([dynamics.batch(t) for t in piece])
    assert batches is not None
    return piece, batches


def _length(num_steps: int, most: int) -> int:
    """The steps of a call: a divisor of all steps between `most`/2 and `most`, else `most`."""
    most = min(num_steps, most)
    return next((k for k in range(most, most // 2, -1) if num_steps % k == 0), most)


def kinds(start: State, hparams: Tensors) -> list[Any]:
    """The shapes, dtypes and devices that a compiled function is for."""
    groups = (*start.items(), ("", hparams))
    return [(g, name, x.shape, x.dtype, x.device) for g, tensors in groups for name, x in tensors.items()]


def _program(dynamics: Dynamics, start: State, piece: range, batches: Batches, pull_back: bool) -> Program | str:
    """The program of a piece, compiled, or why there is none."""
    try:
        program = write(dynamics, start, piece, batches, pull_back)
        given = (detach(dynamics.hparams), told(dynamics, batches, piece))
        with torch.no_grad():
            _, read = program.forward(start, *given)
            program = replace(program, forward=compiled_nested(program.forward, start, *given))
            if program.backward is not None:
                program = replace(program, backward=compiled_nested(program.backward, read, _drawn(start), *given))
        _require_the_same(_with(program, dynamics), dynamics, start, piece, pull_back)
    except CannotCompileError as error:
        return str(error)
    except Exception as error:  # whatever a trace of a user's own model may raise at other values
        return in_one_line(error)
    return program


def compiled_nested(function: Nested, *arguments: Any) -> Nested:
    """The function, compiled; see `compile_checked`."""
    return replace(function, flat=compile_checked(function.flat, tree_leaves(arguments)))


def _with(program: Program, dynamics: Dynamics) -> CompiledDynamics:
    return CompiledDynamics(**{f.name: getattr(dynamics, f.name) for f in fields(Dynamics)}, program=program)


def _require_the_same(ready: CompiledDynamics, dynamics: Dynamics, start: State, piece: range, pull_back: bool) -> None:
    """Hold a piece, and its pull-back where there is one, against the steps as they are.

    Raises:
        CannotCompileError: if they differ by more than rounding explains.
    """
    states, in_order = [start], ready.program.in_order
    for t in piece:
        states.append(dynamics.step(states[-1], t))
    end = in_order(states.pop())
    after, passage = ready.passage(start, piece)
    if not is_near(entries(after), entries(end), entries(in_order(start))):
        raise CannotCompileError("compiled steps lead elsewhere")
    if not pull_back:
        return
    adjoint = _drawn(end)
    pulled, (terms,) = passage.pull_back(adjoint)
    totals: dict[str, Tensor] = {}
    for t in reversed(piece):
        adjoint, (term,) = dynamics.linearise(states.pop(), t).pull_back(adjoint)
        totals |= {name: totals.get(name, 0) + x for name, x in term.items() if x is not None}
    found = [*entries(pulled), *(terms[name] for name in totals)]
    if not is_near(found, [*entries(in_order(adjoint)), *totals.values()]):
        raise CannotCompileError("the pull-back of compiled steps is another one")


def _drawn(state: State) -> State:
    """Normal numbers, shaped as a state."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return {group: {name: draw(x.shape).to(x) for name, x in tensors.items()} for group, tensors in state.items()}


def is_near(found: Sequence[Tensor | None], wanted: Sequence[Tensor], origin: Sequence[Tensor] | None = None) -> bool:
    """Whether ‖x − y‖ ≤ √ε ‖y − origin‖, but for the rounding of y, for each of the tensors."""
    norms = [torch.linalg.vector_norm(y).item() for y in wanted]
    for k, (x, y) in enumerate(zip(found, wanted, strict=True)):
        eps = torch.finfo(y.dtype).eps
        moved = norms[k] if origin is None else torch.linalg.vector_norm(y - origin[k]).item()
        rounding = 100 * eps * (max(norms) if origin is None else norms[k])
        if x is None or not torch.linalg.vector_norm(x - y).item() <= eps**0.5 * moved + rounding:
            return False
    return True
