"""Measuring what a step of training takes."""

import torch
from torch import Tensor

from hypergrad.solver.base import State
from hypergrad.solver.dynamics import Dynamics, Stretch
from hypergrad.tape.base import Footprint


def measure(dynamics: Dynamics, state: State, t: int) -> Footprint:
    """What step t from `state` takes, found by linearising it and the next step: what both hold is shared."""
    here, _alive = _saved(dynamics, state, t)
    there, _too = _saved(dynamics, state, t + 1)
    return Footprint(state, sum(size for storage, size in here.items() if storage not in there))


def _saved(dynamics: Dynamics, state: State, t: int) -> tuple[dict[int, int], Stretch]:
    """The bytes of each storage that the graph of a step holds, and the step."""
    sizes: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return x.detach()  # an output that keeps its own node alive would be a cycle

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        return sizes, dynamics.linearise(state, t)
