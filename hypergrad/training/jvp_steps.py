"""Training steps together with their derivatives, a few steps as one compiled function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.compile.cache import Identity, WeakCache
from hypergrad.compile.tracing import CannotCompileError, Nested, in_one_line, inline_calls, trace_nested
from hypergrad.core.autodiff import Tensors, detach, jvp, leaves
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.compile_steps import CHANGED, is_near
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.pieces import first_piece, kinds
from hypergrad.training.program import compile_nested, pure_step
from hypergrad.training.states import as_leaves, detached, entries
from hypergrad.training.step_inputs import StepInputs, changing_coefficients, select_step, step_inputs

Tangents = list[Tensor]
"""Z = ∂s/∂λ for p entries of λ: one tensor (p, *shape) for each of the state's, in order."""

_MOST_STEPS = 3
"""The most steps in one call: a step with derivatives is a long list of operations, and ten compile for minutes."""


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
class JvpSteps:
    """Consecutive steps, each with its derivatives.

    Attributes:
        length: how many, ≥ 2.
        batches: the kind of batch that they use.
        step: (s_t, Z_t, λ, inputs of that step) ↦ (s_{t+1}, Z_{t+1}), as a trace.
        run: (s_t, Z_t, λ, inputs) ↦ (s_{t+length}, Z_{t+length}), compiled.
    """

    length: int
    batches: Batches
    step: Nested
    run: Nested

    def fits(self, dynamics: Dynamics, steps: range) -> bool:
        """Whether `steps` has this length and this kind of batches."""
        return len(steps) == self.length and Batches.of([dynamics.batch(t) for t in steps]) == self.batches

    @torch.no_grad()
    def over(self, dynamics: Dynamics, state: State, tangents: Tangents, steps: range) -> tuple[State, Tangents]:
        """The state and its derivatives after steps that fit."""
        return self.run(state, tangents, detach(dynamics.hparams), step_inputs(dynamics, self.batches, steps))

    @torch.no_grad()
    def first(self, dynamics: Dynamics, state: State, tangents: Tangents, t: int) -> tuple[State, Tangents]:
        """The state and its derivatives after step t, by the trace."""
        inputs = select_step(self.batches, step_inputs(dynamics, self.batches, range(t, t + 1)), 0)
        return self.step(state, tangents, detach(dynamics.hparams), inputs)


_JVP_STEPS = WeakCache[JvpSteps]()
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
        piece, batches = _first_piece(dynamics, steps)
        key = (Identity(dynamics.solver), len(piece), repr(batches), repr(kinds(state, dynamics.hparams)))
        compiled_steps = _JVP_STEPS.get(
            dynamics.problem, key, lambda: _compile_piece(dynamics, state, tangents, directions, piece, batches)
        )
        wanted = _eager(dynamics, state, tangents, directions, piece[:1])
        if not _agree(compiled_steps.first(dynamics, state, tangents, piece.start), wanted):
            _JVP_STEPS.refuse(dynamics.problem, key, CHANGED)
            raise CannotCompileError(CHANGED)
    except CannotCompileError as error:
        return None, f"not compiled: {error}"
    return compiled_steps, f"compiled, {len(piece)} steps in a call"


def _first_piece(dynamics: Dynamics, steps: range) -> tuple[range, Batches]:
    """The first steps that go into one call.

    Raises:
        CannotCompileError: if no steps do.
    """
    if len(steps) < 2:
        raise CannotCompileError("too few steps")
    if any(changing_coefficients(dynamics).values()):
        raise CannotCompileError("a coefficient that changes from step to step depends on a hyperparameter")
    return first_piece(dynamics, steps, _MOST_STEPS)


def _compile_piece(
    dynamics: Dynamics, state: State, tangents: Tangents, directions: Sequence[Tensor], piece: range, batches: Batches
) -> JvpSteps:
    """The steps of a piece, compiled.

    Raises:
        CannotCompileError: if they cannot be compiled.
    """
    given = (state, tangents, detach(dynamics.hparams))
    try:
        with torch.no_grad():
            inputs = step_inputs(dynamics, batches, piece)
            single = _single_step(dynamics, batches, directions)
            step, traced = trace_nested(single, *given, select_step(batches, inputs, 0))
            run = inline_calls(_repeated_step(step, len(piece), batches), traced, *given, inputs)
            found = JvpSteps(len(piece), batches, step, compile_nested(run, *given, inputs))
        wanted = _eager(dynamics, state, tangents, directions, piece)
        if not _agree(found.over(dynamics, state, tangents, piece), wanted):
            raise CannotCompileError("compiled steps give another result")
    except CannotCompileError:
        raise
    except Exception as error:  # a trace of a user's own model may raise anything at other values
        raise CannotCompileError(in_one_line(error)) from error
    return found


def _single_step(
    dynamics: Dynamics, batches: Batches, directions: Sequence[Tensor]
) -> Callable[..., tuple[State, Tangents]]:
    """`JvpSteps.step` before it is traced."""
    step = pure_step(dynamics, batches)

    def single(state: State, tangents: Tangents, hparams: Tensors, inputs: StepInputs) -> tuple[State, Tangents]:
        before, hp = as_leaves(state), leaves(hparams)
        with torch.enable_grad():
            after = step(before, hp, inputs)
        return jvp_step(before, after, hp, tangents, directions)[:2]

    return single


def _repeated_step(step: Nested, length: int, batches: Batches) -> Callable[..., tuple[State, Tangents]]:
    """`JvpSteps.run` from a single step."""

    def repeated(state: State, tangents: Tangents, hparams: Tensors, inputs: StepInputs) -> tuple[State, Tangents]:
        for k in range(length):
            state, tangents = step(state, tangents, hparams, select_step(batches, inputs, k))
        return state, tangents

    return repeated


def _eager(
    dynamics: Dynamics, state: State, tangents: Tangents, directions: Sequence[Tensor], steps: range
) -> tuple[State, Tangents]:
    for t in steps:
        stretch = dynamics.linearize(state, t)
        state, tangents, _ = jvp_step(stretch.before, stretch.after, dynamics.hparams, tangents, directions)
    return state, tangents


def _agree(found: tuple[State, Tangents], wanted: tuple[State, Tangents]) -> bool:
    return is_near(entries(found[0]), entries(wanted[0])) and is_near(found[1], wanted[1])
