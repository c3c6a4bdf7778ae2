"""The step sizes of table.py, chosen from a grid by the value gap near the end of a short run.

python -m experiments.single_loop.tune [quadratic|logistic] [NAME…]
"""

import itertools
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from benchmarks.problem.bilevel_logistic import BilevelLogistic
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic
from benchmarks.single_loop_by_hand import Problem
from experiments.numbers import load, save
from experiments.single_loop.contestants import ENTRANTS, Entrant, Untuned

_JUDGED = 3
"""Records, of a hundred, whose mean gap is compared: one alone may be low by luck."""


@dataclass(frozen=True)
class Setting:
    """A problem and what is tried on it.

    Attributes:
        problem: of a batch size.
        steps: of w and v.
        ratios: the step of w / the step of u.
        tuning: epochs of a run that is compared.
        epochs: epochs of the runs in the table.
        shown: epochs of its columns.
    """

    problem: Callable[[int | None], Problem]
    steps: tuple[float, ...]
    ratios: tuple[float, ...]
    tuning: float
    epochs: float
    shown: tuple[float, ...]


SETTINGS = {
    "quadratic": Setting(
        lru_cache(lambda batch_size: BilevelQuadratic(batch_size=batch_size)),
        (0.03, 0.1, 0.3),
        (0.1, 0.3, 1.0),
        tuning=10,
        epochs=100,
        shown=(1, 3, 10, 30, 100),
    ),
    "logistic": Setting(
        lru_cache(lambda batch_size: BilevelLogistic(batch_size=batch_size)),
        (0.1, 0.3, 1.0),
        (0.01, 0.03, 0.1),
        tuning=0.5,
        epochs=3,
        shown=(0.1, 0.3, 1, 3),
    ),
}


def tuned(entrant: Entrant, setting: Setting, least: float) -> dict[str, Any]:
    """The best step and ratio, and the gap of each pair, a mean over the last records; NaN where a run diverged."""
    if isinstance(entrant, Untuned):
        sizes = entrant.sizes(setting.problem)
        return {"step": sizes.inner, "ratio": sizes.inner / sizes.outer}
    judge, gaps = setting.problem(None), {}
    for step, ratio in itertools.product(setting.steps, setting.ratios):
        path = entrant.run(setting.problem, step, ratio, setting.tuning)
        gaps[step, ratio] = statistics.mean(path.last(_JUDGED).judged(judge, least)["gap"])
    step, ratio = min(gaps, key=lambda pair: gaps[pair] if math.isfinite(gaps[pair]) else math.inf)
    return {"step": step, "ratio": ratio, "gaps": list(gaps.values())}


def keep(file: str, kind: str, found: dict[str, Any]) -> None:
    """Add to the numbers of a problem, which another process may have changed."""
    numbers = load("single_loop", file)
    save("single_loop", numbers | {kind: numbers.get(kind, {}) | found}, file)


def main() -> None:
    """Tune, and keep what was found."""
    torch.set_num_threads(1)
    chosen, *names = sys.argv[1:] or [""]
    for kind, setting in SETTINGS.items():
        if chosen and kind != chosen:
            continue
        least = load("single_loop", "tuned").get(kind, {}).get("least") or setting.problem(None).optimum()
        for name, entrant in ENTRANTS.items():
            if not names or name in names:
                found = tuned(entrant, setting, least)
                print(kind, name, found, flush=True)
                keep("tuned", kind, {"least": least, name: found})


if __name__ == "__main__":
    main()
