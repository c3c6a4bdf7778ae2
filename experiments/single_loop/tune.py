"""The step sizes of table.py, chosen from a grid by the value gap near the end of a short run.

python -m experiments.single_loop.tune [quadratic|logistic] [NAME…]
"""

import itertools
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.problem.bilevel_logistic import BilevelLogistic
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic
from benchmarks.single_loop_by_hand import Problem
from experiments.numbers import load, save
from experiments.single_loop.contestants import ENTRANTS, Entrant

_JUDGED = 10
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
        lambda batch_size: BilevelQuadratic(batch_size=batch_size),
        (0.03, 0.1, 0.3),
        (0.1, 0.3, 1.0),
        tuning=10,
        epochs=100,
        shown=(1, 3, 10, 30, 100),
    ),
    "logistic": Setting(
        lambda batch_size: BilevelLogistic(batch_size=batch_size),
        (0.1, 0.3, 1.0),
        (0.01, 0.03, 0.1),
        tuning=3,
        epochs=10,
        shown=(0.3, 1, 3, 10),
    ),
}


def tuned(entrant: Entrant, setting: Setting, least: float) -> dict[str, Any]:
    """The best step and ratio, and the gap of each pair, a mean over the last records; NaN where a run diverged."""
    judge, gaps = setting.problem(None), {}
    for step, ratio in itertools.product(setting.steps, setting.ratios):
        path = entrant.run(setting.problem, step, ratio, setting.tuning)
        gaps[step, ratio] = statistics.mean(path.last(_JUDGED).judged(judge, least)["gap"])
    step, ratio = min(gaps, key=lambda pair: gaps[pair] if math.isfinite(gaps[pair]) else math.inf)
    return {"step": step, "ratio": ratio, "gaps": list(gaps.values())}


def main() -> None:
    """Tune, and keep what was found."""
    torch.set_num_threads(1)
    chosen, *names = sys.argv[1:] or [""]
    numbers = load("single_loop", "tuned")
    for kind, setting in SETTINGS.items():
        if chosen and kind != chosen:
            continue
        found = numbers.setdefault(kind, {})
        found.setdefault("least", setting.problem(None).optimum())
        for name, entrant in ENTRANTS.items():
            if not names or name in names:
                found[name] = tuned(entrant, setting, found["least"])
                print(kind, name, found[name], flush=True)
                save("single_loop", numbers, "tuned")


if __name__ == "__main__":
    main()
