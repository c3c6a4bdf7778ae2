"""Measuring the memory of a training step."""

import weakref

import torch
from torch import Tensor

from hypergrad.solver.base import State
from hypergrad.tape.base import Footprint
from hypergrad.training.dynamics import Dynamics, Stretch


def measure(dynamics: Dynamics, state: State, t: int) -> Footprint:
    """The memory of step t from `state`. It is linearized with the next step: storage that both hold is shared."""
    here, _here = _saved(dynamics, state, t)
    there, _there = _saved(dynamics, state, t + 1)
    return Footprint(state, sum(size for storage, size in here.items() if storage not in there))


def _saved(dynamics: Dynamics, state: State, t: int) -> tuple[dict[int, int], Stretch]:
    """The bytes of each storage that the graph of a step holds, and the step, which keeps the storage alive."""
    saved: list[weakref.ref[Tensor]] = []

    def note(x: Tensor) -> Tensor:
        x = x.detach()  # an output that keeps its own node alive would be a cycle
        saved.append(weakref.ref(x))
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        step = dynamics.linearize(state, t)
    # Only storage that is still alive: the address of freed storage may belong to another tensor.
    held = [x.untyped_storage() for ref in saved if (x := ref()) is not None]
    return {storage.data_ptr(): storage.nbytes() for storage in held}, step
