"""Compiling the steps of a run: once for a problem and a solver, and checked against eager steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from hypergrad.compile.cache import Identity, WeakCache
from hypergrad.compile.tracing import CannotCompileError, in_one_line
from hypergrad.core.autodiff import detach
from hypergrad.core.notice import notify
from hypergrad.problem.precision import epsilon_of
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.compile_choice import Ledger, expectation, ledger_of, note_compilation
from hypergrad.training.compiled_dynamics import CompiledDynamics
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.pieces import first_piece, kinds, most_steps
from hypergrad.training.program import BackwardProgram, Example, ForwardProgram, write_backward, write_forward
from hypergrad.training.states import detached, entries
from hypergrad.training.step_inputs import StepTable

T = TypeVar("T")

CHANGED = "a step differs from the compiled one; has data of the problem changed?"
"""Why a compiled program is not used again."""

_FORWARD = WeakCache[ForwardProgram]()
"""Steps by problem, and by everything else on which they depend. Training and all tapes use the same."""
_BACKWARD = WeakCache[BackwardProgram]()
"""Pull-backs likewise."""


def compile_steps(
    dynamics: Dynamics, start: State, steps: range, most: int | None = None, *, pull_back: bool = True
) -> tuple[Dynamics, str]:
    """The same dynamics with compiled steps, or `dynamics` itself if they cannot be compiled.

    The first piece and its pull-back are checked against eager ones when they are compiled. The first step is checked
    again in each run, to notice data that have changed since.

    Args:
        dynamics: what a step does.
        start: where training starts.
        steps: the steps of the run, at least one.
        most: the most steps in one call, ≥ 1; None for the number that suits the device.
        pull_back: whether to compile the pull-back too.

    Returns:
        The dynamics, and a remark of one line: what was compiled, or why nothing was.
    """
    limit = most_steps(start)
    try:
        piece, batches = first_piece(dynamics, steps, limit if most is None else min(most, limit))
        ready = _compiled(dynamics, start, piece, batches, StepTable.of(dynamics, range(steps.stop)), pull_back)
    except CannotCompileError as error:
        return dynamics, f"not compiled: {error}"
    return ready, f"compiled, {len(piece)} steps in a call{ready.forward.loop.remark}"


def _compiled(
    dynamics: Dynamics, start: State, piece: range, batches: Batches, table: StepTable, pull_back: bool
) -> CompiledDynamics:
    """The dynamics with compiled steps, which were checked.

    Raises:
        CannotCompileError: if they cannot be compiled, or differ from eager ones.
    """
    problem, key = dynamics.problem, (Identity(dynamics.solver), repr(batches), repr(kinds(start, dynamics.hparams)))
    given = {f.name: getattr(dynamics, f.name) for f in fields(Dynamics)}
    device = entries(start)[0].device.type
    inputs = table.at(dynamics.hparams, piece.start, batches.tensors(dynamics.batch(piece.start)))
    at = Example(start, detach(dynamics.hparams), inputs)

    def ready(forward: ForwardProgram, backward: BackwardProgram | None) -> CompiledDynamics:
        return CompiledDynamics(**given, length=len(piece), forward=forward, backward=backward, table=table)

    def write_one() -> ForwardProgram:
        forward = write_forward(dynamics, batches, at)
        _require_steps(ready(forward, None), dynamics, start, piece)
        return forward

    def write_other() -> BackwardProgram:
        backward = write_backward(dynamics, batches, at)
        _require_pull_back(ready(forward, backward), dynamics, start, piece)
        return backward

    forward = _FORWARD.get(problem, key, lambda: written(write_one, device, "step"))
    if not _begins_alike(forward, dynamics, at, piece.start):
        _FORWARD.refuse(problem, key, CHANGED)
        raise CannotCompileError(CHANGED)
    return ready(
        forward, _BACKWARD.get(problem, key, lambda: written(write_other, device, "pull-back")) if pull_back else None
    )


def eager_seconds(dynamics: Dynamics, start: State, t: int, *, pull_back: bool) -> Ledger:
    """What is known of eager steps, for `compile="auto"`; the first call measures step t, and its pull-back."""

    def step() -> Tensor:
        if not pull_back:
            return entries(dynamics.step(start, t))[0]
        stretch = dynamics.linearize(start, t)
        entries(dynamics.step(start, t))
        return entries(stretch.pull_back(detached(stretch.after))[0])[0]

    return ledger_of(dynamics, "pull-back" if pull_back else "step", step)


def written(write: Callable[[], T], device: str, kind: str) -> T:
    """What `write` returns; the time that it takes is noted.

    Args:
        write: traces, compiles and checks.
        device: the type of device.
        kind: what is compiled, see `Ledger`.

    Raises:
        CannotCompileError: if it fails.
    """
    begin = time.perf_counter()
    notify(f"compiling the training {kind}; {expectation(device, kind)}")
    try:
        found = write()
        note_compilation(device, kind, time.perf_counter() - begin)
        return found
    except CannotCompileError:
        raise
    except Exception as error:  # a trace of a user's own model may raise anything at other values
        raise CannotCompileError(in_one_line(error)) from error


def _begins_alike(forward: ForwardProgram, dynamics: Dynamics, at: Example, t: int) -> bool:
    """Whether the first step of a run agrees with the traced one."""
    begin = forward.in_order(at.state)
    with torch.no_grad():
        step = forward.step(begin, at.hparams, at.inputs)
    wanted = forward.in_order(dynamics.step(at.state, t))
    return is_near(entries(step), entries(wanted), entries(begin), epsilon=epsilon_of(dynamics.problem))


def _require_steps(ready: CompiledDynamics, dynamics: Dynamics, start: State, piece: range) -> None:
    """Check a piece against eager steps.

    Raises:
        CannotCompileError: if they differ by more than rounding explains.
    """
    found, wanted = (entries(ready.forward.in_order(each.advance(start, piece))) for each in (ready, dynamics))
    origin, epsilon = entries(ready.forward.in_order(start)), epsilon_of(dynamics.problem)
    if not is_near(found, wanted, origin, epsilon=epsilon):
        raise CannotCompileError("compiled steps give another result")


def _require_pull_back(ready: CompiledDynamics, dynamics: Dynamics, start: State, piece: range) -> None:
    """Check the pull-back through a piece against that through eager steps.

    Raises:
        CannotCompileError: if they differ by more than rounding explains.
    """
    states = [start]
    for t in piece:
        states.append(dynamics.step(states[-1], t))
    in_order = ready.forward.in_order
    adjoint = _random_like(in_order(states.pop()))
    pulled, (terms,) = ready.passage(start, piece)[1].pull_back(adjoint)
    totals: dict[str, Tensor] = {}
    for t in reversed(piece):
        adjoint, (term,) = dynamics.linearize(states.pop(), t).pull_back(adjoint)
        totals |= {name: totals.get(name, 0) + x for name, x in term.items() if x is not None}
    found = [*entries(pulled), *(terms[name] for name in totals)]
    eager = [*entries(in_order(adjoint)), *totals.values()]
    if not is_near(found, eager, epsilon=epsilon_of(dynamics.problem)):
        raise CannotCompileError("the pull-back of compiled steps differs from the eager one")


def _random_like(state: State) -> State:
    """Normal random numbers, shaped as a state."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return {group: {name: draw(x.shape).to(x) for name, x in tensors.items()} for group, tensors in state.items()}


def is_near(
    found: Sequence[Tensor | None],
    wanted: Sequence[Tensor],
    origin: Sequence[Tensor] | None = None,
    *,
    epsilon: float = 0.0,
) -> bool:
    """Whether ‖x − y‖ ≤ √ε ‖y − origin‖ for each of the tensors, up to the rounding of y.

    ε is that of the dtype of y, or `epsilon` if the losses are computed in a coarser format.
    """
    norms = [torch.linalg.vector_norm(y).item() for y in wanted]
    for k, (x, y) in enumerate(zip(found, wanted, strict=True)):
        eps = torch.finfo(y.dtype).eps
        moved = norms[k] if origin is None else torch.linalg.vector_norm(y - origin[k]).item()
        rounding = 100 * eps * (max(norms) if origin is None else norms[k])
        if x is None or not torch.linalg.vector_norm(x - y).item() <= max(eps, epsilon) ** 0.5 * moved + rounding:
            return False
    return True
