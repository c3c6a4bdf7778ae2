"""A few training steps in a row, and their pull-back, each as one function of tensors."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from hypergrad.compile.tracing import Nested, compose, trace_nested
from hypergrad.core.autodiff import Tensors, detach, leaves
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import coefficient, root
from hypergrad.solver.schedule import Schedule
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics, filled, free, pull

Now = dict[str, Any]
"""What steps see beside state and λ: `t`, of the first one, and their `batch` and `coefficients`, stacked."""
_NAMES = "{} of this step"


@dataclass(frozen=True)
class Program:
    """`length` steps in a row as pure functions.

    Attributes:
        length: how many steps, ≥ 2.
        names: of the tensors of the state by group, in the order in which the functions take them.
        batches: the kind of batch that they see.
        step: (s_t, λ, now of that step) ↦ s_{t+1}, as a trace.
        forward: (s_t, λ, now) ↦ s_{t+length}, and what the pull-back reads of the states before each step, stacked.
        backward: (what it reads, ∂F/∂s_{t+length}, λ, now) ↦ ∂F/∂s_t, the steps' term of dF/dλ without what comes by
            way of `now`, and ∂F/∂c, stacked, of the coefficients there that depend on λ; None where it is not wanted.
    """

    length: int
    names: dict[str, tuple[str, ...]]
    batches: Batches
    step: Nested
    forward: Nested
    backward: Nested | None

    def in_order(self, state: State) -> State:
        """A state or adjoint, ordered by `names`: a solver may return it in another order than it was given."""
        return {group: {name: state[group][name] for name in names} for group, names in self.names.items()}


def write(dynamics: Dynamics, state: State, piece: range, batches: Batches, with_pull_back: bool) -> Program:
    """The program of pieces like `piece`, from traces of one step and, where it is wanted, its pull-back at `state`.

    Also raised, by what it calls: CannotCompileError if they cannot be traced.
    """
    hparams, now, length = detach(dynamics.hparams), told(dynamics, batches, piece), len(piece)
    here = at(batches, now, 0)
    names = {group: tuple(tensors) for group, tensors in state.items()}
    reads, backward = set(), None
    with torch.no_grad():
        step, traced_step = trace_nested(pure_step(dynamics, batches), state, hparams, here)
        if with_pull_back:
            pull_back, traced = trace_nested(_pull_back(dynamics, batches), state, state, hparams, here)
            inputs = iter(node for node in traced.graph.nodes if node.op == "placeholder")
            reads = {(group, name) for group in names for name in names[group] if next(inputs).users}
            read = {group: {name: x for name, x in xs.items() if (group, name) in reads} for group, xs in state.items()}
            backward = compose(_backward(pull_back, length, batches), traced, read, state, hparams, now)
    forward = compose(_forward(step, length, batches, reads), traced_step, state, hparams, now)
    return Program(length, names, batches, step, forward, backward)


def _forward(
    step: Callable[[State, Tensors, Now], State], length: int, batches: Batches, reads: set[tuple[str, str]]
) -> Callable[[State, Tensors, Now], tuple[State, State]]:
    """`Program.forward` from a single step."""

    def forward(state: State, hparams: Tensors, now: Now) -> tuple[State, State]:
        states = []
        for k in range(length):
            states.append(state)
            state = step(state, hparams, at(batches, now, k))
        read = {
            group: {name: torch.stack([s[group][name] for s in states]) for name in tensors if (group, name) in reads}
            for group, tensors in state.items()
        }
        return state, read

    return forward


def _backward(
    pull_back: Callable[[State, State, Tensors, Now], tuple[State, Tensors, Tensors]], length: int, batches: Batches
) -> Callable[[State, State, Tensors, Now], tuple[State, Tensors, Tensors]]:
    """`Program.backward` from the pull-back of a single step."""

    def backward(read: State, adjoint: State, hparams: Tensors, now: Now) -> tuple[State, Tensors, Tensors]:
        total, slopes = {}, {}
        for k in reversed(range(length)):
            # what is not read may have any value, such as that of the adjoint
            state = {
                group: {name: read[group][name][k] if name in read[group] else a for name, a in tensors.items()}
                for group, tensors in adjoint.items()
            }
            adjoint, terms, slope = pull_back(state, adjoint, hparams, at(batches, now, k))
            total = {name: total[name] + x if name in total else x for name, x in terms.items()}
            slopes = {field: [x, *slopes.get(field, [])] for field, x in slope.items()}
        return adjoint, total, {field: torch.stack(xs) for field, xs in slopes.items()}

    return backward


def told(dynamics: Dynamics, batches: Batches, steps: range) -> Now:
    """What `steps` see."""
    like = next(iter(dynamics.hparams.values()))
    return {
        "t": torch.tensor(steps.start, dtype=like.dtype, device=like.device),
        "coefficients": values_of_coefficients(dynamics, steps),
        "batch": batches.tensors([dynamics.batch(t) for t in steps]) if batches.is_stacked else [],
    }


def values_of_coefficients(dynamics: Dynamics, steps: range) -> Tensors:
    """By field, the coefficients that may change from step to step: for T steps (T,), or (T, 1, G) for G groups.

    Differentiable with respect to λ where grad mode is enabled.
    """
    like, found = next(iter(dynamics.hparams.values())), {}
    for field in changing(dynamics):
        rows = [coefficient(getattr(dynamics.solver, field), dynamics.hparams, t) for t in steps]
        stacked = torch.stack([torch.as_tensor(row, dtype=like.dtype, device=like.device) for row in rows])
        found[field] = stacked if stacked.ndim == 1 else stacked[:, None]
    return found


def changing(dynamics: Dynamics) -> dict[str, bool]:
    """The coefficients that are not one number or one entry of λ at all steps, and whether they depend on λ."""
    return {
        field: isinstance(root(value), str)
        for field, value in dynamics.solver.coefficients().items()
        if isinstance(value, Schedule) or isinstance(value, str) and dynamics.hparams[value].ndim > 0
    }


def at(batches: Batches, now: Now, k: int) -> Now:
    """What the step sees that comes k steps after the first."""
    return {
        "t": now["t"] + k,
        "coefficients": {field: values[k] for field, values in now["coefficients"].items()},
        "batch": batches.at(now["batch"], k),
    }


def pure_step(dynamics: Dynamics, batches: Batches) -> Callable[[State, Tensors, Now], State]:
    """One step, as a function of all that it depends on."""
    names = {field: _NAMES.format(field) for field in changing(dynamics)}

    def step(state: State, hparams: Tensors, now: Now) -> State:
        solver: InnerSolver = replace(dynamics.solver, **names) if names else dynamics.solver
        problem = copy(dynamics.problem)
        vars(problem)["inner_batch"] = lambda _: batches.assemble(now["batch"])
        hp = hparams | {names[field]: value for field, value in now["coefficients"].items()}
        after = solver.step(problem, state, hp, now["t"])
        return {group: {name: after[group][name] for name in tensors} for group, tensors in state.items()}

    return step


def _pull_back(
    dynamics: Dynamics, batches: Batches
) -> Callable[[State, State, Tensors, Now], tuple[State, Tensors, Tensors]]:
    """The pull-back of one step: (s_t, ∂F/∂s_{t+1}, λ, now) ↦ ∂F/∂s_t, its terms of dF/dλ, and ∂F/∂c."""
    step, depends = pure_step(dynamics, batches), changing(dynamics)

    def pull_back(state: State, adjoint: State, hparams: Tensors, now: Now) -> tuple[State, Tensors, Tensors]:
        before, hp = free(state), leaves(hparams)
        c = {field: x.detach().requires_grad_(depends[field]) for field, x in now["coefficients"].items()}
        with torch.enable_grad():
            after = step(before, hp, now | {"coefficients": c})
        wanted = hp | {_NAMES.format(field): x for field, x in c.items() if depends[field]}
        pulled, partial = pull(after, adjoint, before, wanted)
        found = {name: x for name, x in partial.items() if x is not None}
        slopes = {field: found.pop(_NAMES.format(field)) for field in c if _NAMES.format(field) in found}
        return filled(pulled, before), found, slopes

    return pull_back
