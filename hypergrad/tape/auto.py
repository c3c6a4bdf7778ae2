"""The fastest tape that fits into memory."""

from dataclasses import dataclass, replace

from hypergrad.core.validation import require_real
from hypergrad.solver.base import State
from hypergrad.tape.base import Footprint, Tape, TapeCost, Trajectory
from hypergrad.tape.checkpoint import Checkpoint
from hypergrad.tape.depot import IN_FLIGHT
from hypergrad.tape.footprint import measure
from hypergrad.tape.graph import Graph
from hypergrad.tape.offloading import require_place
from hypergrad.tape.reversible import Reversible
from hypergrad.tape.store import Store
from hypergrad.training.dynamics import Dynamics


@dataclass(frozen=True, kw_only=True)
class AutoTape(Tape):
    """Uses the tape with the fewest gradient evaluations that fits into a budget, measured on one step of the run.

    The candidates are `Graph`, `Store`, `Checkpoint` with as many slots as fit, and `Reversible` if it can run the
    solver's steps backwards. Processes that share the problem use the same tape, which fits on each of them.

    Attributes:
        budget: bytes for the trajectory and the graphs that exist at the same time, > 0.
        offload: "cpu" or "disk" if `Store` may move states there that do not fit into the budget, see
            `OffloadingTape`; None if not.
    """

    budget: float = 1e9
    offload: str | None = None

    def __post_init__(self) -> None:
        require_place(self)
        require_real(self, "budget", above=0)

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        own = measure(dynamics, state, steps.start)
        # The parts of a batch differ, and with them the graphs; tapes sum in another order.
        largest = replace(own, graph=dynamics.problem.peers.most(own.graph))
        return self.choose(dynamics, largest, steps).record(dynamics, state, steps)

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost | None:
        return self.choose(dynamics, footprint, steps).cost(dynamics, footprint, steps)

    def choose(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> Tape:
        """The tape to use.

        Raises:
            ValueError: if none fits.
        """
        slots = int((self.budget - footprint.graph) // max(footprint.state, 1)) - 1
        candidates = [Graph(), Store(), Checkpoint(slots=max(1, min(slots, len(steps) // 2)))]
        candidates += [] if dynamics.stride else [Reversible()]  # its steps are never compiled
        room = self.budget - footprint.graph - IN_FLIGHT * footprint.state
        candidates += [Store(offload=self.offload, budget=room)] if self.offload is not None and room >= 0 else []
        costs = [(tape, cost) for tape in candidates if (cost := tape.cost(dynamics, footprint, steps)) is not None]
        fitting = [(tape, cost) for tape, cost in costs if cost.memory <= self.budget]
        if not fitting:
            least = min(cost.memory for _, cost in costs)
            raise ValueError(
                f"No tape fits {len(steps)} steps into a budget of {self.budget:.3g} bytes; the smallest needs "
                f"{least:.3g}. Raise AutoTape.budget, let it offload states, shorten the horizon, or use "
                "estimator=forward."
            )
        return min(fitting, key=lambda pair: pair[1].gradients)[0]
