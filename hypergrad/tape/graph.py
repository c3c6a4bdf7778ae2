"""Keep the graph of every step."""

from dataclasses import dataclass

from hypergrad.solver.base import State
from hypergrad.solver.dynamics import Dynamics, Stretch, detached
from hypergrad.tape.base import Cost, Footprint, Tape, Trajectory

PIECES = 32


@dataclass(frozen=True, kw_only=True)
class Graph(Tape):
    """Keeps every step's graph: no gradient is evaluated twice, so it is the fastest; memory ∝ T × activations.

    The graphs of T/32 steps in a row are one, for a backward pass costs some 50 µs whatever it does.

    Source: Domke, "Generic methods for optimization-based modeling", AISTATS (2012).
    """

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        stretches: list[Stretch] = []
        for piece in pieces(steps):
            stretches.append(dynamics.linearise(state, piece.start, len(piece)))
            state = stretches[-1].after
        return Trajectory(detached(state), (stretches.pop() for _ in range(len(stretches))))

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> Cost:
        return Cost(memory=len(steps) * (footprint.graph + footprint.state), gradients=len(steps))


def pieces(steps: range) -> list[range]:
    """The steps in pieces of T/32, rounded down but at least 1; the last may be shorter."""
    length = max(len(steps) // PIECES, 1)
    return [steps[begin : begin + length] for begin in range(0, len(steps), length)]
