"""Regression of sine waves from a few of their points."""

import math
from dataclasses import dataclass

import torch

from hypergrad.core.validation import require_int
from hypergrad.data.tables import Split
from hypergrad.task.base import TaskFamily, Tasks

_AMPLITUDES, _PHASES, _INPUTS = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)
"""The ranges of A, φ and x, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Sinusoids(TaskFamily):
    """Sine waves y = A sin(x − φ), each known at a few points, without noise.

    A is uniform in [0.1, 5], φ in [0, π] and x in [−5, 5]; inputs have shape (B, k, 1). No wave is drawn twice, so
    held-out tasks are simply further draws.

    Attributes:
        shots: points k of a wave to adapt to, ≥ 1.
        queries: further points q of it to judge by, ≥ 1.

    Source: Finn, Abbeel & Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML (2017).
    """

    shots: int = 10
    queries: int = 10

    def __post_init__(self) -> None:
        require_int(self, "shots", least=1)
        require_int(self, "queries", least=1)

    def draw(self, count: int, generator: torch.Generator, *, held_out: bool = False) -> Tasks:
        def uniform(low: float, high: float, points: int) -> torch.Tensor:
            return low + (high - low) * torch.rand(count, points, generator=generator, dtype=torch.float64)

        amplitude, phase = uniform(*_AMPLITUDES, 1), uniform(*_PHASES, 1)
        x = uniform(*_INPUTS, self.shots + self.queries)
        y, sizes = amplitude * torch.sin(x - phase), [self.shots, self.queries]
        X = x[:, :, None]
        return Tasks(*(Split(*part) for part in zip(X.split(sizes, 1), y.split(sizes, 1), strict=True)))
