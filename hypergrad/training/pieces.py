"""Which steps of a run go into one call of a compiled function."""

from typing import Any

from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.autodiff import Tensors
from hypergrad.solver.base import State
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics


def first_piece(dynamics: Dynamics, steps: range, most: int) -> tuple[range, Batches]:
    """The first steps that go into one call.

    Raises:
        CannotCompileError: if no two consecutive steps go together.
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
            else "the batches of consecutive steps differ in more than the values of tensors, as with dropout"
        )
    batches = Batches.of([dynamics.batch(t) for t in piece])
    assert batches is not None
    return piece, batches


def _length(num_steps: int, most: int) -> int:
    """The steps of a call: a divisor of `num_steps` between `most`/2 and `most`, or `most` if there is none."""
    most = min(num_steps, most)
    return next((k for k in range(most, most // 2, -1) if num_steps % k == 0), most)


def kinds(start: State, hparams: Tensors) -> list[Any]:
    """The shapes, dtypes and devices that a compiled function is for."""
    groups = (*start.items(), ("", hparams))
    return [(g, name, x.shape, x.dtype, x.device) for g, tensors in groups for name, x in tensors.items()]
