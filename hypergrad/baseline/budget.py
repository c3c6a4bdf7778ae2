"""The budget of a search."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from hypergrad.core.cost import PRODUCT, Spent
from hypergrad.table.read import found_runs

_TAGS = {"seconds": "run/seconds", "steps": "run/inner_steps", "gradients": "run/gradients"}
"""Where the metrics of a run record each unit."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search may spend; it ends after the first trial that reaches a limit.

    Attributes:
        trials: the most trials after the start; None for no limit.
        steps: inner steps of all trials together.
        gradients: gradients of the inner loss; a Hessian product counts as two.
        seconds: wall time.
    """

    trials: int | None = None
    steps: float = math.inf
    gradients: float = math.inf
    seconds: float = math.inf

    @classmethod
    def of(cls, text: str) -> "Budget":
        """From "100" (trials), "30s", "20000steps", "20000gradients", or the folder of a run.

        A folder means the gradients that its run has spent; "FOLDER:seconds" and "FOLDER:steps" mean its time and its
        inner steps.

        Raises:
            ValueError: if it is none of them.

        Also raised, by what it calls: FileNotFoundError if a folder of that name holds no run.
        """
        folder, _, unit = text.rpartition(":")
        if unit not in _TAGS:
            folder, unit = text, "gradients"
        if Path(folder).is_dir():
            return replace(cls(), **{unit: spent_by(Path(folder), unit)})
        unit = next((unit for unit in ("steps", "gradients", "s") if text.endswith(unit)), "")
        try:
            amount = float(text.removesuffix(unit))
        except ValueError:
            amount = math.nan
        if not 0 < amount < math.inf or not unit and amount != int(amount):
            raise ValueError(
                "budget must be a number of trials, such as 100, of seconds, such as 30s, of inner steps or gradients, "
                f"such as 20000steps or 20000gradients, or the folder of a run, but it is {text!r}."
            )
        if not unit:
            return cls(trials=int(amount))
        return replace(cls(), **{"seconds" if unit == "s" else unit: amount})

    def is_spent(self, cost: Spent, steps: int, seconds: float) -> bool:
        """Whether the spent gradients and products, inner steps or seconds allow no further trial."""
        gradients = cost.gradients + PRODUCT * cost.matvecs
        return gradients >= self.gradients or steps >= self.steps or seconds >= self.seconds


def spent_by(folder: Path, unit: str) -> float:
    """What the run in a folder has spent, in "seconds", "steps" or "gradients".

    Raises:
        ValueError: if the folder holds several runs, or a run without a step, or one that did not count gradients.
    """
    runs = found_runs([folder])
    if len(runs) > 1:
        raise ValueError(f"{folder} holds {len(runs)} runs; name one, such as {runs[0].folder}.")
    if not runs[0].rows:
        raise ValueError(f"The run in {folder} has recorded no step yet; wait for the first one, or name another run.")
    last = runs[0].rows[-1]
    missing = {_TAGS[unit], "run/products"} - last.keys()
    if missing:
        raise ValueError(f"The run in {folder} did not record {', '.join(sorted(missing))}; name a newer one.")
    return last[_TAGS[unit]] + (PRODUCT * last["run/products"] if unit == "gradients" else 0)
