"""Which steps of a run go into one call of a compiled function."""

from typing import Any

from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.autodiff import Tensors
from hypergrad.problem.distributed.sharing import require_one_process
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.states import entries

MOST_STEPS = 10
"""The most steps in one call on a CPU: more save little time."""
_MOST_ON_GPU = 40
"""The most steps in one CUDA graph. A judgement: a launch of the graph then costs little for each of the steps."""
_MOST_BYTES = 2**27
"""The most bytes of states in one CUDA graph, which keeps the state of each of its steps in memory of its own."""


def most_steps(start: State) -> int:
    """The most steps that go into one call."""
    tensors = entries(start)
    if not tensors[0].is_cuda:
        return MOST_STEPS
    return min(_MOST_ON_GPU, max(2, _MOST_BYTES // sum(x.nbytes for x in tensors)))


def first_piece(dynamics: Dynamics, steps: range, most: int) -> tuple[range, Batches]:
    """The first steps that go into one call.

    Raises:
        CannotCompileError: if no two consecutive steps go together.

    Also raised, by what it calls: CannotCompileError if several processes share the problem.
    """
    require_one_process(dynamics.problem)
    length = _length(len(steps), most)
    window = steps[: 2 * length]
    each = [Batches.of(dynamics.batch(t)) for t in window]
    begins = [k for k in range(len(window)) if k == 0 or each[k] != each[k - 1]]
    alike = [window[begin:end] for begin, end in zip(begins, [*begins[1:], len(window)], strict=True)]
    piece = max(alike, key=len)[:length]
    batches = each[piece.start - steps.start]
    if None in each or batches is None:
        raise CannotCompileError("inner_batch returns something other than tensors, numbers and strings")
    if len(piece) < 2:
        raise CannotCompileError(
            "a run of one step"
            if len(steps) == 1
            else "the batches of consecutive steps differ in more than the values of tensors, as with dropout"
        )
    return piece, batches


def _length(num_steps: int, most: int) -> int:
    """The steps of a call: a divisor of `num_steps` between `most`/2 and `most`, or `most` if there is none."""
    most = min(num_steps, most)
    return next((k for k in range(most, most // 2, -1) if num_steps % k == 0), most)


def kinds(start: State, hparams: Tensors) -> list[Any]:
    """The shapes, dtypes and devices that a compiled function is for."""
    groups = (*start.items(), ("", hparams))
    return [(g, name, x.shape, x.dtype, x.device) for g, tensors in groups for name, x in tensors.items()]
