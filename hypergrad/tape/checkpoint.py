"""Keep some of the states, and recompute the others from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import comb, isqrt
from operator import itemgetter

from hypergrad.core.validation import require_int
from hypergrad.solver.base import State
from hypergrad.tape.base import Footprint, TapeCost, Trajectory
from hypergrad.tape.depot import Depot
from hypergrad.tape.offloading import OffloadingTape
from hypergrad.training.dynamics import Dynamics, Passage
from hypergrad.training.states import detached


@dataclass(frozen=True, kw_only=True, repr=False)
class Checkpoint(OffloadingTape):
    """Keeps c states at a time and recomputes the others, by the schedule with the fewest steps: memory ∝ c.

    With c = ⌈√T⌉ no step is taken more than three times for T ≤ 10⁴. In general none is taken more than r times if
    binomial(c + r, r) ≥ T, so c and r grow as log T if they grow together. If steps are compiled, the steps of one call
    count as one here.

    Attributes:
        slots: c, the states kept at a time, the first one included, ≥ 1; "auto" is ⌈√T⌉.
        offload: where states go that do not stay in memory: "cpu" (from a GPU), "disk" or None; see `OffloadingTape`.
        budget: bytes of states that stay before the first is moved out, ≥ 0; only with `offload`.

    Examples:
        >>> problem = hg.Ridge(hg.diabetes())
        >>> for tape in (hg.Store(), hg.Checkpoint(slots=5)):
        ...     estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=50, tape=tape)
        ...     found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        ...     print(f"dF/dλ = {found.grad['l2']:.4f}")
        dF/dλ = 0.0425
        dF/dλ = 0.0425

    Source: Griewank & Walther, "Algorithm 799: revolve", ACM Transactions on Mathematical Software (2000).
    """

    slots: int | str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slots != "auto":
            require_int(self, "slots", least=1)

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        depot = self.depot(state)
        backwards = self._backwards(dynamics, state, dynamics.pieces(steps), depot)
        end, last = next(backwards)
        return Trajectory(detached(end), chain((last,), map(itemgetter(1), backwards)), depot.close)

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost:
        self.require_elsewhere(footprint.start)
        slots = min(self.slots_for(len(steps)), len(steps))
        others = footprint.state + footprint.graph
        return self.cost_of(slots, footprint.state, others, fewest_steps(len(steps), slots) + len(steps))

    def slots_for(self, num_steps: int) -> int:
        """The states kept at a time in a run of T steps."""
        return isqrt(num_steps - 1) + 1 if isinstance(self.slots, str) else self.slots

    def _backwards(
        self, dynamics: Dynamics, state: State, pieces: list[range], depot: Depot
    ) -> Iterator[tuple[State, Passage]]:
        slots, stop = self.slots_for(len(pieces)), len(pieces)
        kept = [0]  # the pieces before which a state is kept, in the depot under its place in this list
        try:
            depot.put(0, state)
            while kept:
                i, state = kept[-1], depot.get(len(kept) - 1)
                while stop - i > 1:
                    middle = i + split(stop - i, slots - len(kept) + 1)
                    for piece in pieces[i:middle]:
                        state = dynamics.advance(state, piece)
                    i = middle
                    if stop - i > 1:
                        depot.put(len(kept), state)
                        kept.append(i)
                if kept[-1] == i:
                    kept.pop()
                    depot.drop(len(kept))
                    depot.expect(len(kept) - 1)
                yield dynamics.passage(state, pieces[i])
                stop = i
        finally:
            depot.close()


def split(length: int, slots: int) -> int:
    """After how many steps to keep the next state, from 1 to `length` − 1, which keeps none if there is one slot.

    With s slots, the start's included, β(s, r) = binomial(s + r, s) steps can be reversed if none is taken more than r
    times. The steps before the next state are reversed with s slots in r − 1 passes, those after it with s − 1 slots in
    r passes. The fewest steps are taken if neither part needs fewer passes than that:

        β(s, r−2) ≤ before ≤ β(s, r−1),    β(s−1, r−1) ≤ after ≤ β(s−1, r).

    Args:
        length: steps to reverse, ≥ 2.
        slots: s ≥ 1.
    """
    passes = num_passes(length, slots)
    return min(comb(slots + passes - 1, slots), length - comb(slots + passes - 2, slots - 1))


def num_passes(length: int, slots: int) -> int:
    """How often a step is taken at most: the smallest r with binomial(s + r, s) ≥ `length`."""
    passes = 0
    while comb(slots + passes, slots) < length:
        passes += 1
    return passes


def fewest_steps(length: int, slots: int) -> int:
    """The steps without a graph to reverse T = `length` steps, including training: r T − binomial(s + r, s + 1)."""
    passes = num_passes(length, slots)
    return passes * length - comb(slots + passes, slots + 1)
