"""A training step, and its pull-back, each compiled as one function of lists of tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from hypergrad.compile.inductor import InductorProgram, compile_with_inductor
from hypergrad.compile.loop import Loop
from hypergrad.compile.torch_compile import require_same
from hypergrad.compile.tracing import Nested, trace_nested
from hypergrad.core.autodiff import Tensors, detach, leaves
from hypergrad.core.torch_internals.trees import tree_leaves, tree_unflatten
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import epsilon_of
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.states import as_leaves, entries, filled, state_vjp
from hypergrad.training.step_inputs import StepInputs, changing_coefficients, fixed_coefficients


@dataclass(frozen=True)
class Example:
    """Where a step is traced: its arguments.

    Attributes:
        state: s_t.
        hparams: λ.
        inputs: of the step.
    """

    state: State
    hparams: Tensors
    inputs: StepInputs


@dataclass(frozen=True)
class ForwardProgram:
    """A step.

    Attributes:
        names: the tensors of the state by group, in the order of its lists of tensors.
        batches: the kind of batch that it uses.
        step: (s_t, λ, inputs of that step) ↦ s_{t+1}, as a trace.
        loop: with λ as early arguments: the state is carried; a row is t, the coefficients that change, and the batch.
    """

    names: dict[str, tuple[str, ...]]
    batches: Batches
    step: Nested
    loop: Loop

    def in_order(self, state: State) -> State:
        """A state or adjoint, ordered by `names`: a solver may return it in a different order."""
        return {group: {name: state[group][name] for name in names} for group, names in self.names.items()}

    def tensors(self, state: State) -> list[Tensor]:
        """A state or adjoint as a list of tensors outside any graph."""
        return [state[group][name].detach().contiguous() for group, names in self.names.items() for name in names]

    def state(self, tensors: Sequence[Tensor]) -> State:
        """The inverse of `tensors`."""
        rest = iter(tensors)
        return {group: {name: next(rest) for name in names} for group, names in self.names.items()}


@dataclass(frozen=True)
class BackwardProgram:
    """The pull-back of a step.

    Attributes:
        reads: which of the tensors of the state s_t it reads.
        terms: the hyperparameters on which a step depends other than through coefficients that change.
        slopes: the coefficients that change from step to step and depend on λ.
        loop: with λ as early arguments: the adjoint is carried, and after it the terms of dF/dλ, summed; a row is what
            is read of the state, t, the coefficients that change, and the batch; extras are ∂F/∂c for the slopes.
    """

    reads: tuple[int, ...]
    terms: tuple[str, ...]
    slopes: tuple[str, ...]
    loop: Loop


def write_forward(dynamics: Dynamics, batches: Batches, at: Example) -> ForwardProgram:
    """A step, traced and compiled.

    Also raised, by what it calls: CannotCompileError if it cannot be.
    """
    names = {group: tuple(tensors) for group, tensors in at.state.items()}
    with torch.no_grad():
        step, _ = trace_nested(pure_step(dynamics, batches), at.state, at.hparams, at.inputs)
        p, s = len(at.hparams), len(entries(at.state))

        def flat(*tensors: Tensor) -> Sequence[Tensor]:
            return step.flat(*tensors[p : p + s], *tensors[:p], *tensors[p + s :])

        late = [*entries(at.state), *tree_leaves(at.inputs)]
        body = compiled_body(flat, at.hparams, late, epsilon_of(dynamics.problem))
    return ForwardProgram(names, batches, step, Loop(body, s))


def write_backward(dynamics: Dynamics, batches: Batches, at: Example) -> BackwardProgram:
    """The pull-back of a step, traced and compiled.

    Also raised, by what it calls: CannotCompileError if it cannot be.
    """
    state, p = entries(at.state), len(at.hparams)
    s = len(state)
    with torch.no_grad():
        step_vjp, traced = trace_nested(_step_vjp(dynamics, batches), at.state, at.state, at.hparams, at.inputs)
        arguments = [node for node in traced.graph.nodes if node.op == "placeholder"]
        reads = tuple(k for k in range(s) if arguments[k].users)
        _, terms, slopes = tree_unflatten(range(step_vjp.result.num_leaves), step_vjp.result)
        m, r = len(terms), len(reads)

        def flat(*tensors: Tensor) -> list[Tensor]:
            hparams, adjoint, totals = tensors[:p], tensors[p : p + s], tensors[p + s : p + s + m]
            read, inputs = tensors[p + s + m : p + s + m + r], tensors[p + s + m + r :]
            # a tensor that is not read may have any value, such as that of the adjoint
            known = dict(zip(reads, read, strict=True))
            before = [known.get(k, x) for k, x in enumerate(adjoint)]
            found = step_vjp.flat(*before, *adjoint, *hparams, *inputs)
            sums = [total + x for total, x in zip(totals, found[s : s + m], strict=True)]
            return [*found[:s], *sums, *found[s + m :]]

        totals = [torch.zeros_like(at.hparams[name]) for name in terms]
        late = [*map(torch.ones_like, state), *totals, *(in_a_stack(state[k]) for k in reads), *tree_leaves(at.inputs)]
        body = compiled_body(flat, at.hparams, late, epsilon_of(dynamics.problem))
    return BackwardProgram(reads, tuple(terms), tuple(slopes), Loop(body, s + m, backwards=True))


def compiled_body(
    flat: Callable[..., Sequence[Tensor]], hparams: Tensors, late: list[Tensor], epsilon: float
) -> InductorProgram:
    """(*λ, *late) ↦ tensors, compiled, and compared with the function itself, which is computed to ε = `epsilon`.

    Also raised, by what it calls: CannotCompileError if it cannot be compiled, or the results differ.
    """
    early, late = contiguous(hparams), [x.detach().contiguous() for x in late]
    body = compile_with_inductor(flat, early, late)
    require_same(body.run(*body.prepare(*early), *late), flat(*early, *late), epsilon)
    return body


def contiguous(hparams: Tensors) -> list[Tensor]:
    """λ as the early arguments of a body."""
    return [x.contiguous() for x in detach(hparams).values()]


def in_a_stack(x: Tensor) -> Tensor:
    """The same values, placed in memory as in a stack of tensors: a compiler may not rely on more."""
    return torch.stack([x, x])[1]


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
