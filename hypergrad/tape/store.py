"""Keep the state of every step."""

from dataclasses import dataclass

from torch import Tensor

from hypergrad.solver.base import State
from hypergrad.tape.base import Footprint, Tape, TapeCost, Trajectory
from hypergrad.training.dynamics import Dynamics

_ALIGNMENT = 64
"""Bytes, as in the allocator of torch; see `_rows`."""


@dataclass(frozen=True, kw_only=True)
class Store(Tape):
    """Keeps the states s_0, …, s_{T−1} and linearizes each step again: memory ∝ T × state, without activations.

    Each gradient is evaluated twice, once to train and once on the way back. For compiled steps it keeps only the
    tensors of the state that their pull-back reads: no velocity, unless a learning rate or momentum is tuned.
    """

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        if dynamics.stride is not None:
            return Trajectory.kept(dynamics, state, dynamics.pieces(steps))
        # Allocated as one piece: a small tensor kept after each step would fragment the memory that its gradient freed.
        states = {
            group: {name: _rows(x, len(steps)) for name, x in tensors.items()} for group, tensors in state.items()
        }
        for k, t in enumerate(steps):
            for group, tensors in state.items():
                for name, x in tensors.items():
                    states[group][name][k] = x
            state = dynamics.step(state, t)

        def at(k: int) -> State:
            return {group: {name: x[k] for name, x in tensors.items()} for group, tensors in states.items()}

        return Trajectory(state, (dynamics.linearize(at(k), steps[k]) for k in reversed(range(len(steps)))))

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost:
        return TapeCost(memory=len(steps) * footprint.state + footprint.graph, gradients=2 * len(steps))


def _rows(x: Tensor, num: int) -> Tensor:
    """Memory for `num` tensors like x, each aligned as a new tensor is.

    The rounding of a product depends on whether an operand begins at a multiple of 64 bytes, as every new tensor does.
    With this alignment a repeated step is the same as the original one, bit for bit.
    """
    size = x.element_size()
    row = -(-x.numel() * size // _ALIGNMENT) * _ALIGNMENT // size
    return x.new_empty(num, row)[:, : x.numel()].view(num, *x.shape)
