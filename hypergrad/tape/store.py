"""Keep the state of every step."""

from dataclasses import dataclass

from hypergrad.solver.base import State
from hypergrad.solver.dynamics import Dynamics
from hypergrad.tape.base import Cost, Footprint, Tape, Trajectory


@dataclass(frozen=True, kw_only=True)
class Store(Tape):
    """Keeps the states s_0, …, s_{T−1} and linearises each step anew: memory ∝ T × state, whatever the activations.

    Each gradient is evaluated twice, once to train and once on the way back.
    """

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        states: list[State] = []
        for t in steps:
            states.append(state)
            state = dynamics.step(state, t)
        return Trajectory(state, (dynamics.linearise(states.pop(), t) for t in reversed(steps)))

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> Cost:
        return Cost(memory=len(steps) * footprint.state + footprint.graph, gradients=2 * len(steps))
