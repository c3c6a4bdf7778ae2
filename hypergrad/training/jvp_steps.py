"""Training steps together with their derivatives, a few steps as one compiled function."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hypergrad.compile.cache import Identity, WeakCache
from hypergrad.compile.loop import Loop
from hypergrad.compile.tracing import CannotCompileError, Nested, trace_nested
from hypergrad.core.autodiff import Tensors, detach, jvp, leaves
from hypergrad.core.torch_internals.trees import tree_leaves
from hypergrad.problem.precision import epsilon_of
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.compile_choice import Ledger, ledger_of
from hypergrad.training.compile_steps import CHANGED, is_near, written
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.pieces import first_piece, kinds, most_steps
from hypergrad.training.program import compiled_body, contiguous, pure_step
from hypergrad.training.states import as_leaves, detached, entries
from hypergrad.training.step_inputs import StepInputs, StepTable, changing_coefficients

Tangents = list[Tensor]
"""Z = ∂s/∂λ for p entries of λ: one tensor (p, *shape) for each of the state's, in order."""


def jvp_step(
    before: State, after: State, hparams: Tensors, tangents: Tangents, directions: Sequence[Tensor]
) -> tuple[State, Tangents, dict[str, bool]]:
    """The end of a step with a graph and its derivatives, (∂Φ/∂s) Z + (∂Φ/∂λ) E.

    Args:
        before: s_t, leaves of the graph; empty at the start, which no state precedes.
        after: s_{t+1}.
        hparams: λ, leaves too.
        tangents: Z at s_t.
        directions: E, shape (p, *shape) for each tensor of λ.

    Returns:
        s_{t+1} outside the graph, Z there, and whether the step depends on each hyperparameter.
    """
    # a solver may return its state in a different order
    after = {group: {name: after[group][name] for name in xs} for group, xs in (before or after).items()}
    inputs = entries(before)
    found, uses = jvp(entries(after), [*inputs, *hparams.values()], [*tangents, *directions])
    return detached(after), found, dict(zip(hparams, uses[len(inputs) :], strict=True))


@dataclass(frozen=True)
class JvpProgram:
    """A step with its derivatives.

    Attributes:
        batches: the kind of batch that it uses.
        step: (s_t, Z_t, λ, inputs of that step) ↦ (s_{t+1}, Z_{t+1}), as a trace.
        loop: with λ as early arguments: s and Z are carried; a row is t, the coefficients that change, and the batch.
    """

    batches: Batches
    step: Nested
    loop: Loop


@dataclass(frozen=True)
class JvpSteps:
    """The steps of a run, each with its derivatives, several in a call.

    Attributes:
        length: the most steps in a call.
        program: a step, compiled.
        table: of all steps of the run.
        shared: what all steps share.
    """

    length: int
    program: JvpProgram
    table: StepTable
    shared: list[Tensor]

    def fits(self, dynamics: Dynamics, steps: range) -> bool:
        """Whether the batches of the steps are of the kind that the program uses."""
        return all(Batches.of(dynamics.batch(t)) == self.program.batches for t in steps)

    @torch.no_grad()
    def over(self, dynamics: Dynamics, state: State, tangents: Tangents, steps: range) -> tuple[State, Tangents]:
        """The state and its derivatives after steps that fit."""
        loop, batches = self.program.loop, self.program.batches
        rows = [batches.tensors(dynamics.batch(t)) for t in steps]
        columns = [*self.table.columns(dynamics.hparams, steps), *map(list, zip(*rows, strict=True))]
        carried = [x.contiguous() for x in (*entries(detached(state)), *tangents)]
        found = iter(loop.own(loop.run(self.shared, carried, columns).carried))
        after = {group: {name: next(found) for name in tensors} for group, tensors in state.items()}
        return after, list(found)


_KIND = "step with derivatives"
_PROGRAMS = WeakCache[JvpProgram]()
"""By problem, and by everything else on which they depend."""


def compile_jvp_steps(
    dynamics: Dynamics, state: State, tangents: Tangents, directions: Sequence[Tensor], steps: range
) -> tuple[JvpSteps | None, str]:
    """Compiled steps with their derivatives, or None if they cannot be compiled.

    They are checked against eager ones: a whole call when they are compiled, and the first step in each run.

    Args:
        dynamics: what a step does.
        state: before the first of the steps.
        tangents: Z there.
        directions: see `jvp_step`.
        steps: the steps of the run.

    Returns:
        The steps, and a remark of one line: what was compiled, or why nothing was.
    """  # noqa: DOC501 (it is caught)
    try:
        piece, batches = _first_piece(dynamics, state, steps)
        table = StepTable.of(dynamics, steps)
        inputs = table.at(dynamics.hparams, piece.start, batches.tensors(dynamics.batch(piece.start)))
        given, key = (state, tangents, detach(dynamics.hparams), inputs), _key(dynamics, state, batches)
        early = contiguous(dynamics.hparams)

        def ready(program: JvpProgram) -> JvpSteps:
            return JvpSteps(len(piece), program, table, program.loop.body.prepare(*early))

        def write() -> JvpProgram:
            program = _write(dynamics, batches, directions, given)
            wanted = _eager(dynamics, state, tangents, directions, piece)
            if not _agree(dynamics, ready(program).over(dynamics, state, tangents, piece), wanted):
                raise CannotCompileError("compiled steps give another result")
            return program

        program = _PROGRAMS.get(dynamics.problem, key, lambda: written(write, early[0].device.type, _KIND))
        with torch.no_grad():
            first = program.step(*given)
        if not _agree(dynamics, first, _eager(dynamics, state, tangents, directions, piece[:1])):
            _PROGRAMS.refuse(dynamics.problem, key, CHANGED)
            raise CannotCompileError(CHANGED)
    except CannotCompileError as error:
        return None, f"not compiled: {error}"
    return ready(program), f"compiled, {len(piece)} steps in a call{program.loop.remark}"


def eager_seconds(dynamics: Dynamics, state: State, tangents: Tangents, directions: Sequence[Tensor], t: int) -> Ledger:
    """What is known of eager steps, for `compile="auto"`; the first call measures step t with its derivatives."""
    step = partial(_eager, dynamics, state, tangents, directions, range(t, t + 1))
    return ledger_of(dynamics, _KIND, lambda: entries(step()[0])[0])


def _key(dynamics: Dynamics, state: State, batches: Batches) -> Hashable:
    return Identity(dynamics.solver), repr(batches), repr(kinds(state, dynamics.hparams))


def _first_piece(dynamics: Dynamics, state: State, steps: range) -> tuple[range, Batches]:
    """The first steps that go into one call.

    Raises:
        CannotCompileError: if no steps do.
    """
    if len(steps) < 2:
        raise CannotCompileError("too few steps")
    if any(changing_coefficients(dynamics).values()):
        raise CannotCompileError("a coefficient that changes from step to step depends on a hyperparameter")
    return first_piece(dynamics, steps, most_steps(state))


def _write(
    dynamics: Dynamics,
    batches: Batches,
    directions: Sequence[Tensor],
    given: tuple[State, Tangents, Tensors, StepInputs],
) -> JvpProgram:
    """A step with its derivatives, traced and compiled.

    Also raised, by what it calls: CannotCompileError if it cannot be.
    """
    state, tangents, hparams, inputs = given
    count, p = len(entries(state)) + len(tangents), len(hparams)
    with torch.no_grad():
        step, _ = trace_nested(_single_step(dynamics, batches, directions), *given)

        def flat(*tensors: Tensor) -> Sequence[Tensor]:
            return step.flat(*tensors[p : p + count], *tensors[:p], *tensors[p + count :])

        late = [*entries(detached(state)), *tangents, *tree_leaves(inputs)]
        return JvpProgram(batches, step, Loop(compiled_body(flat, hparams, late, epsilon_of(dynamics.problem)), count))


def _single_step(
    dynamics: Dynamics, batches: Batches, directions: Sequence[Tensor]
) -> Callable[..., tuple[State, Tangents]]:
    """`JvpProgram.step` before it is traced."""
    step = pure_step(dynamics, batches)

    def single(state: State, tangents: Tangents, hparams: Tensors, inputs: StepInputs) -> tuple[State, Tangents]:
        before, hp = as_leaves(state), leaves(hparams)
        with torch.enable_grad():
            after = step(before, hp, inputs)
        return jvp_step(before, after, hp, tangents, directions)[:2]

    return single


def _eager(
    dynamics: Dynamics, state: State, tangents: Tangents, directions: Sequence[Tensor], steps: range
) -> tuple[State, Tangents]:
    for t in steps:
        stretch = dynamics.linearize(state, t)
        state, tangents, _ = jvp_step(stretch.before, stretch.after, dynamics.hparams, tangents, directions)
    return state, tangents


def _agree(dynamics: Dynamics, found: tuple[State, Tangents], wanted: tuple[State, Tangents]) -> bool:
    near = partial(is_near, epsilon=epsilon_of(dynamics.problem))
    return near(entries(found[0]), entries(wanted[0])) and near(found[1], wanted[1])
