"""A few consecutive training steps, and their pull-back, each as one function of tensors."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch.utils._pytree import tree_leaves

from hypergrad.compile.torch_compile import compile_checked
from hypergrad.compile.tracing import Nested, inline_calls, trace_nested
from hypergrad.core.autodiff import Tensors, detach, leaves
from hypergrad.problem.oracle import Oracle
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.states import as_leaves, filled, state_vjp
from hypergrad.training.step_inputs import (
    StepInputs,
    changing_coefficients,
    fixed_coefficients,
    select_step,
    step_inputs,
)


@dataclass(frozen=True)
class Program:
    """`length` consecutive steps as pure functions.

    Attributes:
        length: how many steps, ≥ 2.
        names: the tensors of the state by group, in the order that the functions expect.
        batches: the kind of batch that they use.
        step: (s_t, λ, inputs of that step) ↦ s_{t+1}, as a trace.
        forward: (s_t, λ, inputs) ↦ s_{t+length}, and what the pull-back reads of the states before each step, stacked.
        backward: (what it reads, ∂F/∂s_{t+length}, λ, inputs) ↦ ∂F/∂s_t, the steps' term of dF/dλ without the part
            through the inputs, and ∂F/∂c, stacked, for coefficients c in them that depend on λ; None if not wanted.
    """

    length: int
    names: dict[str, tuple[str, ...]]
    batches: Batches
    step: Nested
    forward: Nested
    backward: Nested | None

    def in_order(self, state: State) -> State:
        """A state or adjoint, ordered by `names`: a solver may return it in a different order."""
        return {group: {name: state[group][name] for name in names} for group, names in self.names.items()}


def write(dynamics: Dynamics, state: State, piece: range, batches: Batches, with_pull_back: bool) -> Program:
    """The program of pieces like `piece`, from traces at `state` of one step and, if wanted, its pull-back.

    Also raised, by what it calls: CannotCompileError if they cannot be traced.
    """
    hparams, inputs, length = detach(dynamics.hparams), step_inputs(dynamics, batches, piece), len(piece)
    here = select_step(batches, inputs, 0)
    names = {group: tuple(tensors) for group, tensors in state.items()}
    reads, backward = set(), None
    with torch.no_grad():
        step, traced_step = trace_nested(pure_step(dynamics, batches), state, hparams, here)
        if with_pull_back:
            step_vjp, traced = trace_nested(_step_vjp(dynamics, batches), state, state, hparams, here)
            nodes = iter(node for node in traced.graph.nodes if node.op == "placeholder")
            reads = {(group, name) for group in names for name in names[group] if next(nodes).users}
            read = {group: {name: x for name, x in xs.items() if (group, name) in reads} for group, xs in state.items()}
            backward = inline_calls(_backward(step_vjp, length, batches), traced, read, state, hparams, inputs)
    forward = inline_calls(_forward(step, length, batches, reads), traced_step, state, hparams, inputs)
    return Program(length, names, batches, step, forward, backward)


def compile_nested(function: Nested, *arguments: Any) -> Nested:
    """The function through torch.compile, checked at the arguments; see `compile_checked`."""
    return replace(function, flat=compile_checked(function.flat, tree_leaves(arguments)))


def _forward(
    step: Callable[[State, Tensors, StepInputs], State], length: int, batches: Batches, reads: set[tuple[str, str]]
) -> Callable[[State, Tensors, StepInputs], tuple[State, State]]:
    """`Program.forward` from a single step."""

    def forward(state: State, hparams: Tensors, inputs: StepInputs) -> tuple[State, State]:
        states = []
        for k in range(length):
            states.append(state)
            state = step(state, hparams, select_step(batches, inputs, k))
        read = {
            group: {name: torch.stack([s[group][name] for s in states]) for name in tensors if (group, name) in reads}
            for group, tensors in state.items()
        }
        return state, read

    return forward


def _backward(
    step_vjp: Callable[[State, State, Tensors, StepInputs], tuple[State, Tensors, Tensors]],
    length: int,
    batches: Batches,
) -> Callable[[State, State, Tensors, StepInputs], tuple[State, Tensors, Tensors]]:
    """`Program.backward` from the pull-back of a single step."""

    def backward(read: State, adjoint: State, hparams: Tensors, inputs: StepInputs) -> tuple[State, Tensors, Tensors]:
        total, slopes = {}, {}
        for k in reversed(range(length)):
            # a tensor that is not read may have any value, such as that of the adjoint
            state = {
                group: {name: read[group][name][k] if name in read[group] else a for name, a in tensors.items()}
                for group, tensors in adjoint.items()
            }
            adjoint, terms, slope = step_vjp(state, adjoint, hparams, select_step(batches, inputs, k))
            total = {name: total[name] + x if name in total else x for name, x in terms.items()}
            slopes = {field: [x, *slopes.get(field, [])] for field, x in slope.items()}
        return adjoint, total, {field: torch.stack(xs) for field, xs in slopes.items()}

    return backward


def pure_step(dynamics: Dynamics, batches: Batches) -> Callable[[State, Tensors, StepInputs], State]:
    """One step, as a function of everything on which it depends."""
    problem, solver = dynamics.problem, dynamics.solver

    def step(state: State, hparams: Tensors, inputs: StepInputs) -> State:
        values = {**fixed_coefficients(dynamics, hparams), **inputs.coefficients}
        oracle = Oracle(problem, hparams, batches.assemble(inputs.batch))
        # A solver may do arithmetic with the number of a step, which is a tensor here.
        after = solver.step(oracle, state, solver.by_tensor(values, state["params"]), cast(int, inputs.t))
        return {group: {name: after[group][name] for name in tensors} for group, tensors in state.items()}

    return step


def _step_vjp(
    dynamics: Dynamics, batches: Batches
) -> Callable[[State, State, Tensors, StepInputs], tuple[State, Tensors, Tensors]]:
    """The pull-back of one step: (s_t, ∂F/∂s_{t+1}, λ, inputs) ↦ ∂F/∂s_t, its terms of dF/dλ, and ∂F/∂c."""
    step, depends = pure_step(dynamics, batches), changing_coefficients(dynamics)

    def step_vjp(state: State, adjoint: State, hparams: Tensors, inputs: StepInputs) -> tuple[State, Tensors, Tensors]:
        before, hp = as_leaves(state), leaves(hparams)
        c = {field: x.detach().requires_grad_(depends[field]) for field, x in inputs.coefficients.items()}
        with torch.enable_grad():
            after = step(before, hp, inputs._replace(coefficients=c))
        wanted = {("λ", name): x for name, x in hp.items()}
        wanted |= {("c", field): x for field, x in c.items() if depends[field]}
        pulled, partial = state_vjp(after, adjoint, before, wanted)
        found = {key: x for key, x in partial.items() if x is not None}
        terms, slopes = ({name: x for (kind, name), x in found.items() if kind == of} for of in ("λ", "c"))
        return filled(pulled, before), terms, slopes

    return step_vjp
