"""Tapes whose states can be moved out of memory."""

from dataclasses import dataclass, fields

from hypergrad.core.validation import require_real
from hypergrad.solver.base import State
from hypergrad.tape.base import Tape, TapeCost
from hypergrad.tape.depot import IN_FLIGHT, Depot
from hypergrad.training.states import entries

PLACES = (None, "cpu", "disk")


@dataclass(frozen=True, kw_only=True, repr=False)
class OffloadingTape(Tape):
    """A tape that keeps states, of which those beyond a budget of memory are moved out and read ahead on the way back.

    The bits are those of the plain tape. Copies run beside the computation.

    Attributes:
        offload: where to: "cpu", from a GPU to pinned memory; "disk", to a temporary folder, which is deleted
            afterwards, also after an error, and lies where the environment variable TMPDIR says; None for nowhere.
        budget: bytes of states that stay before the first is moved out, ≥ 0; only with `offload`.
    """

    offload: str | None = None
    budget: float = 0.0

    def __post_init__(self) -> None:
        require_place(self)
        require_real(self, "budget", least=0)
        if self.budget and self.offload is None:
            raise ValueError(
                f"{type(self).__name__}.budget = {self.budget:g} bytes is for states that stay while others are moved "
                "out; set offload to 'cpu' or 'disk', or leave the budget at 0."
            )

    def __repr__(self) -> str:
        names = [f.name for f in fields(self) if self.offload is not None or f.name not in ("offload", "budget")]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def depot(self, state: State) -> Depot:
        """Where the states of a run are kept.

        Also raised, by what it calls: ValueError if states on the CPU were to be moved to the CPU.
        """
        self.require_elsewhere(state)
        return Depot(self.offload, self.budget)

    def require_elsewhere(self, state: State) -> None:
        """Require that states are not where they are to be moved.

        Raises:
            ValueError: if they are.
        """
        device = entries(state)[0].device
        if self.offload == "cpu" and device.type != "cuda":
            raise ValueError(
                f"{type(self).__name__}.offload = 'cpu' moves states out of the memory of a GPU, but these are on the "
                f"device {device} already. Use offload='disk', or None."
            )

    def cost_of(self, num_states: int, state: int, others: int, gradients: int) -> TapeCost:
        """The cost of keeping some states.

        Args:
            num_states: how many at a time.
            state: bytes of one.
            others: bytes of all else in memory.
            gradients: evaluations of the inner gradient.
        """
        total = num_states * state
        if self.offload is None:
            return TapeCost(memory=total + others, gradients=gradients)
        kept = min(int(self.budget) // max(state, 1), num_states) * state
        moving = min(IN_FLIGHT * state, total - kept)
        return TapeCost(memory=kept + moving + others, gradients=gradients, offloaded=total - kept)


def require_place(tape: object) -> None:
    """Require that `offload` is a place.

    Raises:
        ValueError: if it is not.
    """
    offload = getattr(tape, "offload", None)
    if offload not in PLACES:
        raise ValueError(f"{type(tape).__name__}.offload must be 'cpu', 'disk' or None, but it is {offload!r}.")
