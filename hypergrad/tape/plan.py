"""What each tape would take, before a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from hypergrad.tape.base import TapeCost

_COMPILED = (
    "counted for eager steps; of compiled ones Graph keeps states, as Store does, and Checkpoint takes those of one "
    "call as one step"
)


@dataclass(frozen=True)
class Plan:
    """What one hypergradient through the last K steps of a run would take; printed, a table.

    Attributes:
        costs: by tape, as it would be written; None where it does not serve the solver.
        horizon: K.
        compile: whether compiled steps were asked for, which the costs know nothing of: they would have to be compiled
            to be measured.
    """

    costs: Mapping[str, TapeCost | None]
    horizon: int
    compile: bool = False

    def __str__(self) -> str:
        width = max(map(len, self.costs))
        lines = [f"one hypergradient through {self.horizon} steps, with {self.horizon} Hessian products", ""]
        lines += [f"{'tape':<{width}}  {'MB':>9}  {'gradients':>9}"]
        for tape, cost in self.costs.items():
            numbers = "does not serve the solver" if cost is None else f"{cost.memory / 1e6:9.3g}  {cost.gradients:9}"
            lines.append(f"{tape:<{width}}  {numbers}")
        return "\n".join([*lines, "", _COMPILED] if self.compile else lines)
