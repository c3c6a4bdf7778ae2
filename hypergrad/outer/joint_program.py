"""The outer step of a single-loop method, compiled, and called several times in a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypergrad.compile.cache import Identity, WeakCache
from hypergrad.compile.inductor import compile_with_inductor
from hypergrad.compile.loop import Column, Loop
from hypergrad.compile.packed import Packed
from hypergrad.compile.torch_compile import require_same
from hypergrad.compile.tracing import CannotCompileError, trace
from hypergrad.core.device import sent
from hypergrad.outer.joint_step import JointState, JointStep, Row
from hypergrad.problem.precision import epsilon_of
from hypergrad.single_loop.base import Method
from hypergrad.training.compile_steps import written
from hypergrad.training.program import in_a_stack

KIND = "joint step"
"""What is compiled, for `compile="auto"`."""
_GPU_LENGTHS = (32, 8, 1)
"""Steps in a CUDA graph: few lengths, because each is recorded once and keeps memory of its own."""
_LENGTH = 100
"""The most steps in a call on a CPU: more save little time."""
_MOST_BYTES = 2**27
"""The most bytes of states in one CUDA graph, as for training steps."""


class StepRow(NamedTuple):
    """What differs from step to step besides the state, on the host: see `Row`."""

    numbers: list[float]
    indices: list[int]
    tensors: list[Tensor]


@dataclass(frozen=True)
class JointProgram:
    """A compiled outer step.

    Attributes:
        loop: the state is carried, and the rest is as in `Row`.
        shared: what all calls share.
        lengths: how many steps may go into one call, the most first; None if any number up to `most` may.
        most: the most steps in a call.
    """

    loop: Loop
    shared: list[Tensor]
    lengths: tuple[int, ...] | None
    most: int

    def length(self, available: int) -> int:
        """How many of the available steps, ≥ 1, go into the next call."""
        if self.lengths is None:
            return min(available, self.most)
        return next(length for length in self.lengths if length <= available)

    @torch.no_grad()
    def run(self, state: Packed, rows: Sequence[StepRow]) -> JointState:
        """The state after the steps of some rows; later runs do not overwrite it."""
        columns = _columns(rows, state.tensors[0])
        after = self.loop.run(self.shared, [x.contiguous() for x in state.tensors], columns)
        return state.unpack(self.loop.own(after.carried))


PROGRAMS = WeakCache[JointProgram]()
"""By problem, and by everything else on which a step depends."""


def key_of(step: JointStep, state: Packed) -> tuple[Any, ...]:
    """What a compiled step depends on besides its problem."""
    return _by_value(step.method), step.update.key, repr(step.kinds), step.max_grad_norm, repr(state.key)


def joint_program(step: JointStep, state: Packed, row: StepRow) -> JointProgram:
    """The compiled step, made at the first call for a problem.

    Args:
        step: what it does.
        state: where it is traced, a `JointState`.
        row: of that step.

    Also raised, by what it calls: CannotCompileError if it cannot be compiled.
    """
    device = state.tensors[0].device.type
    return PROGRAMS.get(
        step.problem, key_of(step, state), lambda: written(lambda: _program(step, state, row), device, KIND)
    )


def _by_value(method: Method) -> Any:
    """The method, as a part of a key that equal ones match; if a field has no hash, only this one."""
    try:
        hash(method)
    except TypeError:
        return Identity(method)
    return method


@torch.no_grad()
def _program(step: JointStep, state: Packed, row: StepRow) -> JointProgram:
    """The step, traced and compiled.

    Raises:
        CannotCompileError: if it cannot be.
    """
    count, keys = len(state.tensors), []

    def flat(*tensors: Tensor) -> list[Tensor]:
        numbers, indices, *batches = tensors[count:]
        after = Packed.of(step(state.unpack(tensors[:count]), Row(numbers, indices, batches)))
        keys.append(after.key)
        return after.tensors

    numbers, indices, *batches = (column[0] for column in _columns([row], state.tensors[0]))
    late = [x.contiguous() for x in (*state.tensors, in_a_stack(numbers), in_a_stack(indices), *batches)]
    traced = trace(flat, late, [torch.ops.aten.addmm])
    if keys[-1] != state.key:
        raise CannotCompileError(
            "a move changes its memory in more than the values of tensors: keep numbers that change as tensors"
        )
    body = compile_with_inductor(traced, [], late)
    shared = body.prepare()
    require_same(body.run(*shared, *late), traced(*late), epsilon_of(step.problem))
    if not late[0].is_cuda:
        return JointProgram(Loop(body, count), shared, None, _LENGTH)
    size = sum(x.nbytes for x in late)
    fitting = tuple(length for length in _GPU_LENGTHS if length == 1 or length * size <= _MOST_BYTES)
    return JointProgram(Loop(body, count), shared, fitting, fitting[0])


def _columns(rows: Sequence[StepRow], like: Tensor) -> list[Column]:
    """The rows by column, with numbers and indices on the device of a tensor, and numbers in its precision."""
    numbers = torch.tensor([row.numbers for row in rows], dtype=like.dtype)
    indices = torch.tensor([row.indices for row in rows])
    batches = [list(column) for column in zip(*(row.tensors for row in rows), strict=True)]
    return [sent(numbers, like.device), sent(indices, like.device), *batches]
