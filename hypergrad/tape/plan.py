"""What each tape would cost, before a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from hypergrad.tape.base import TapeCost

_COMPILED = (
    "counted for eager steps; if steps are compiled, Graph keeps states, as Store does, and Checkpoint counts those of "
    "one call as one step"
)


@dataclass(frozen=True)
class Plan:
    """What one hypergradient through the last K steps of a run would cost; `print` shows a table.

    Attributes:
        costs: by the repr of the tape; None if it does not serve the solver.
        horizon: K.
        compile: whether compiled steps were requested. The costs are of eager steps, because compiled ones would have
            to be compiled to be measured.
    """

    costs: Mapping[str, TapeCost | None]
    horizon: int
    compile: bool | str = False

    def __str__(self) -> str:
        width, moves = max(map(len, self.costs)), any(cost and cost.offloaded for cost in self.costs.values())
        lines = [f"one hypergradient through {self.horizon} steps, with {self.horizon} Hessian products", ""]
        lines += [f"{'tape':<{width}}  {'MB':>9}  {'gradients':>9}" + f"  {'MB offloaded':>12}" * moves]
        for tape, cost in self.costs.items():
            numbers = "does not serve the solver" if cost is None else f"{cost.memory / 1e6:9.3g}  {cost.gradients:9}"
            more = f"  {cost.offloaded / 1e6:12.3g}" if moves and cost is not None else ""
            lines.append(f"{tape:<{width}}  {numbers}{more}")
        return "\n".join([*lines, "", _COMPILED] if self.compile else lines)
