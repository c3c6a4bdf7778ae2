"""Where random choices come from: a seed, for many cases, or hypothesis, for cases that shrink."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    """Random choices; the simplest option comes first."""

    def one(self, options: Sequence[T]) -> T: ...

    def integer(self, least: int, most: int) -> int: ...


@dataclass(frozen=True)
class Seeded:
    """Choices of case `number` of a run with a seed."""

    rng: np.random.Generator

    @classmethod
    def of(cls, seed: int, number: int) -> "Seeded":
        return cls(np.random.default_rng([seed, number]))

    def one(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def integer(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))


@dataclass(frozen=True)
class Shrinking:
    """Choices of hypothesis, which finds the simplest ones that fail."""

    draw: Callable[[Any], Any]

    def one(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))

    def integer(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))
