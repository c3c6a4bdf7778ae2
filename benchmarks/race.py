"""The least budgets with which the contestants reach ever smaller errors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from benchmarks.contestants import REFERENCE, Contestant
from benchmarks.exact import Exact
from benchmarks.search import least_budget

_TURN_SECONDS = 0.1


@dataclass(frozen=True)
class Trial:
    """The result of a budget: relative error of the hypergradient, products spent, seconds of the call."""

    error: float
    products: int
    seconds: float


@dataclass(frozen=True)
class Entry:
    """A contestant with the least budget that reaches a goal, or None, and its result, or that of the largest."""

    contestant: Contestant
    budget: float | None
    trial: Trial

    def clocked(self) -> Callable[[], float]:
        """Seconds of one call, the mean of as many as fill a turn, so that cold caches do not count."""
        assert self.budget is not None
        budget, calls = self.budget, max(1, min(100, math.ceil(_TURN_SECONDS / self.trial.seconds)))
        return lambda: self.contestant.run(budget, calls).seconds


class Race:
    """Contestants on the way to ever smaller errors."""

    def __init__(self, contestants: dict[str, Contestant], exact: Exact, most: int) -> None:
        self._contestants, self._exact, self._most = contestants, exact, most
        self._try = cache(self._uncached)
        self._lost: set[str] = set()

    def to(self, goal: float) -> dict[str, Entry]:
        """All contestants at the least budget that reaches an error; goals must be asked for from the largest."""
        entries: dict[str, Entry] = {}
        guess = 1
        for name, contestant in self._contestants.items():
            budget: float | None = goal
            if contestant.budgeted:
                budget = None if name in self._lost else self._least(name, goal, guess)
            if budget is None:
                self._lost.add(name)
            entries[name] = Entry(contestant, budget, self._try(name, self._most if budget is None else budget))
            if name == REFERENCE:
                guess = int(budget or 1)
        return entries

    def _least(self, name: str, goal: float, guess: int) -> int | None:
        return least_budget(lambda K: self._try(name, K).error, goal, most=self._most, guess=guess)

    def _uncached(self, name: str, budget: float) -> Trial:
        outcome = self._contestants[name].run(budget)
        return Trial(self._exact.error(outcome.hypergradient), outcome.products, outcome.seconds)
