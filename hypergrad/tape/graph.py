"""Keep the graph of every step."""

from dataclasses import dataclass

from hypergrad.solver.base import State
from hypergrad.tape.base import Footprint, Tape, TapeCost, Trajectory
from hypergrad.training.dynamics import Dynamics

_PIECES = 32
"""Backward passes in a run: few enough that their overhead is small, and enough to free memory on the way."""


@dataclass(frozen=True, kw_only=True)
class Graph(Tape):
    """Keeps every step's graph: no gradient is evaluated twice, so it is the fastest; memory ∝ T × activations.

    T/32 consecutive steps share one graph, because each backward pass has an overhead of some 50 µs. Compiled steps
    have no graph: their states are kept, as in `Store`.

    Source: Domke, "Generic methods for optimization-based modeling", AISTATS (2012).
    """

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        return Trajectory.kept(dynamics, state, dynamics.pieces(steps, max(len(steps) // _PIECES, 1)))

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost:
        return TapeCost(memory=len(steps) * (footprint.graph + footprint.state), gradients=len(steps))
