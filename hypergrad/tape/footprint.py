"""Measuring what a step of training takes."""

import weakref

import torch
from torch import Tensor

from hypergrad.solver.base import State
from hypergrad.tape.base import Footprint
from hypergrad.training.dynamics import Dynamics, Stretch


def measure(dynamics: Dynamics, state: State, t: int) -> Footprint:
    """What step t from `state` takes, found by linearizing it and the next step: what both hold is shared."""
    here, _alive = _saved(dynamics, state, t)
    there, _too = _saved(dynamics, state, t + 1)
    return Footprint(state, sum(size for storage, size in here.items() if storage not in there))


def _saved(dynamics: Dynamics, state: State, t: int) -> tuple[dict[int, int], Stretch]:
    """The bytes of each storage that the graph of a step holds, and the step, which keeps them."""
    saved: list[weakref.ref[Tensor]] = []

    def note(x: Tensor) -> Tensor:
        x = x.detach()  # an output that keeps its own node alive would be a cycle
        saved.append(weakref.ref(x))
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        step = dynamics.linearize(state, t)
    # Only what is still alive: what was freed on the way gave its address to another.
    held = [x.untyped_storage() for ref in saved if (x := ref()) is not None]
    return {storage.data_ptr(): storage.nbytes() for storage in held}, step
