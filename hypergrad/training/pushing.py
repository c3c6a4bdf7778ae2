"""Training steps that carry derivatives along, a few in a row as one compiled function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hypergrad.compile.tracing import CannotCompileError, Nested, compose, said_by, trace_nested
from hypergrad.core.autodiff import Tensors, detach, leaves, push
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, State
from hypergrad.training.batches import Batches
from hypergrad.training.compilation import compiled_nested, first_piece, is_near, kinds
from hypergrad.training.dynamics import Dynamics, detached, entries, free
from hypergrad.training.program import Now, at, changing, pure_step, told

Tangents = list[Tensor]
"""Z = ∂s/∂λ for p entries of λ: one tensor (p, *shape) for each of the state's, in order."""

_MOST_STEPS = 3
"""In one call: a step with its derivatives is a long list of operations, and ten of them take minutes to compile."""
_PUSHES: "WeakKeyDictionary[InnerProblem, dict[Any, tuple[InnerSolver, Pushes | str]]]" = WeakKeyDictionary()
"""As the programs of `compile_steps` are kept."""


def carried(
    before: State, after: State, hparams: Tensors, tangents: Tangents, directions: Sequence[Tensor]
) -> tuple[State, Tangents, dict[str, bool]]:
    """The end of a step with a graph and its derivatives, (∂Φ/∂s) Z + (∂Φ/∂λ) E.

    Args:
        before: s_t, leaves of the graph; empty for a start that has none before it.
        after: s_{t+1}.
        hparams: λ, leaves too.
        tangents: Z at s_t.
        directions: E, shape (p, *shape) for each tensor of λ.

    Returns:
        s_{t+1} outside the graph, Z there, and whether the step depends on each hyperparameter.
    """
    # a solver may return its state in another order than it was given
    after = {group: {name: after[group][name] for name in xs} for group, xs in (before or after).items()}
    inputs = entries(before)
    found, uses = push(entries(after), [*inputs, *hparams.values()], [*tangents, *directions])
    return detached(after), found, dict(zip(hparams, uses[len(inputs) :], strict=True))


@dataclass(frozen=True)
class Pushes:
    """Steps in a row that carry derivatives along.

    Attributes:
        length: how many, ≥ 2.
        batches: the kind of batch that they see.
        step: (s_t, Z_t, λ, now of that step) ↦ (s_{t+1}, Z_{t+1}), as a trace.
        run: (s_t, Z_t, λ, now) ↦ (s_{t+length}, Z_{t+length}), compiled.
    """

    length: int
    batches: Batches
    step: Nested
    run: Nested

    def fits(self, dynamics: Dynamics, steps: range) -> bool:
        """Whether these are as many steps, on batches of that kind."""
        return len(steps) == self.length and Batches.of([dynamics.batch(t) for t in steps]) == self.batches

    @torch.no_grad()
    def over(self, dynamics: Dynamics, state: State, tangents: Tangents, steps: range) -> tuple[State, Tangents]:
        """The state and its derivatives after steps that fit."""
        return self.run(state, tangents, detach(dynamics.hparams), told(dynamics, self.batches, steps))


def compile_pushes(
    dynamics: Dynamics, state: State, tangents: Tangents, directions: Sequence[Tensor], steps: range
) -> tuple[Pushes | None, str]:
    """Compiled steps that carry derivatives along, or none.

    They are held against eager ones from here on: a whole call when they are compiled, its first step in each run.

    Args:
        dynamics: what a step does.
        state: before the first of the steps.
        tangents: Z there.
        directions: see `carried`.
        steps: those to come.

    Returns:
        The steps, and what was done, or not done and why, in one line.
    """  # noqa: DOC501 (it is caught here)
    known = _PUSHES.setdefault(dynamics.problem, {})
    try:
        if len(steps) < 2:
            raise CannotCompileError("too few steps")
        if any(changing(dynamics).values()):
            raise CannotCompileError("a coefficient that changes from step to step depends on a hyperparameter")
        piece, batches = first_piece(dynamics, steps, _MOST_STEPS)
        key = (id(dynamics.solver), len(piece), repr(batches), repr(kinds(state, dynamics.hparams)))
        if key not in known:
            known[key] = (dynamics.solver, _pushes(dynamics, state, tangents, directions, piece, batches))
        pushes = known[key][1]
        if isinstance(pushes, str):
            return None, f"not compiled: {pushes}"
        now = at(batches, told(dynamics, batches, piece[:1]), 0)
        with torch.no_grad():
            found = pushes.step(state, tangents, detach(dynamics.hparams), now)
    except CannotCompileError as error:
        return None, f"not compiled: {error}"
    if not _agree(found, _eager(dynamics, state, tangents, directions, piece[:1])):
        reason = "a step is not the one that was compiled; has data of the problem changed?"
        known[key] = (dynamics.solver, reason)
        return None, f"not compiled: {reason}"
    return pushes, f"compiled, {len(piece)} steps in a call"


def _pushes(
    dynamics: Dynamics,
    state: State,
    tangents: Tangents,
    directions: Sequence[Tensor],
    piece: range,
    batches: Batches,
) -> Pushes | str:
    """The steps of a piece, compiled, or why they cannot be."""
    hparams, now = detach(dynamics.hparams), told(dynamics, batches, piece)
    try:
        with torch.no_grad():
            step, traced = trace_nested(
                _step(dynamics, batches, directions), state, tangents, hparams, at(batches, now, 0)
            )
            run = compose(_several(step, len(piece), batches), traced, state, tangents, hparams, now)
            pushes = Pushes(len(piece), batches, step, compiled_nested(run, state, tangents, hparams, now))
        if not _agree(
            pushes.over(dynamics, state, tangents, piece), _eager(dynamics, state, tangents, directions, piece)
        ):
            return "compiled steps lead elsewhere"
    except CannotCompileError as error:
        return str(error)
    except Exception as error:  # whatever a trace of a user's own model may raise at other values
        return said_by(error)
    return pushes


def _step(dynamics: Dynamics, batches: Batches, directions: Sequence[Tensor]) -> Callable[..., tuple[State, Tangents]]:
    """`Pushes.step` before it is traced."""
    step = pure_step(dynamics, batches)

    def pushed(state: State, tangents: Tangents, hparams: Tensors, now: Now) -> tuple[State, Tangents]:
        before, hp = free(state), leaves(hparams)
        with torch.enable_grad():
            after = step(before, hp, now)
        return carried(before, after, hp, tangents, directions)[:2]

    return pushed


def _several(step: Nested, length: int, batches: Batches) -> Callable[..., tuple[State, Tangents]]:
    """`Pushes.run` from a single step."""

    def several(state: State, tangents: Tangents, hparams: Tensors, now: Now) -> tuple[State, Tangents]:
        for k in range(length):
            state, tangents = step(state, tangents, hparams, at(batches, now, k))
        return state, tangents

    return several


def _eager(
    dynamics: Dynamics, state: State, tangents: Tangents, directions: Sequence[Tensor], steps: range
) -> tuple[State, Tangents]:
    for t in steps:
        stretch = dynamics.linearise(state, t)
        state, tangents, _ = carried(stretch.before, stretch.after, dynamics.hparams, tangents, directions)
    return state, tangents


def _agree(found: tuple[State, Tangents], wanted: tuple[State, Tangents]) -> bool:
    return is_near(entries(found[0]), entries(wanted[0])) and is_near(found[1], wanted[1])
