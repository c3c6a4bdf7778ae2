"""Keep the state of every step."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from hypergrad.solver.base import State
from hypergrad.tape.base import Footprint, TapeCost, Trajectory
from hypergrad.tape.offloading import OffloadingTape
from hypergrad.training.dynamics import Dynamics, Passage

_ALIGNMENT = 64
"""Bytes, as in the allocator of torch; see `_rows`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Store(OffloadingTape):
    """Keeps the states s_0, …, s_{T−1} and linearizes each step again: memory ∝ T × state, without activations.

    Each gradient is evaluated twice, once to train and once on the way back. For compiled steps it keeps only the
    tensors of the state that their pull-back reads: no velocity, unless a learning rate or momentum is tuned.
    With `offload`, memory does not grow with T, see `OffloadingTape`.

    Attributes:
        offload: where states go that do not stay in memory: "cpu" (from a GPU), "disk" or None.
        budget: bytes of states that stay before the first is moved out, ≥ 0; only with `offload`.
    """

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        if self.offload is not None:
            return self._record_outside(dynamics, state, dynamics.pieces(steps))
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

    def _record_outside(self, dynamics: Dynamics, state: State, pieces: list[range]) -> Trajectory:
        depot, passages = self.depot(state), []
        try:
            for k, piece in enumerate(pieces):
                if dynamics.stride is None:
                    depot.put(k, state)
                    state = dynamics.advance(state, piece)
                else:
                    state, passage = dynamics.passage(state, piece)
                    depot.put(k, passage.states)
                    passages.append(passage.holding({}))
        except BaseException:
            depot.close()
            raise

        def backwards() -> Iterator[Passage]:
            try:
                for k in reversed(range(len(pieces))):
                    kept = depot.take(k)
                    yield passages[k].holding(kept) if passages else dynamics.linearize(kept, pieces[k].start)
                    del kept
            finally:
                depot.close()

        return Trajectory(state, backwards(), depot.close)

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost:
        self.require_elsewhere(footprint.start)
        return self.cost_of(len(steps), footprint.state, footprint.graph, 2 * len(steps))


def _rows(x: Tensor, num: int) -> Tensor:
    """Memory for `num` tensors like x, each aligned as a new tensor is.

    The rounding of a product depends on whether an operand begins at a multiple of 64 bytes, as every new tensor does.
    With this alignment a repeated step is the same as the original one, bit for bit.
    """
    size = x.element_size()
    row = -(-x.numel() * size // _ALIGNMENT) * _ALIGNMENT // size
    return x.new_empty(num, row)[:, : x.numel()].view(num, *x.shape)
