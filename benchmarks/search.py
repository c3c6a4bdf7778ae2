"""The least budget that reaches an error."""

from collections.abc import Callable
from functools import cache


def least_budget(error: Callable[[int], float], goal: float, *, most: int, guess: int = 1) -> int | None:
    """The least K ≤ `most` with error(K) ≤ goal, for an error that falls as K grows; None if there is none.

    Args:
        error: the error left by a budget of K ≥ 1.
        goal: the error to reach.
        most: the largest budget to try, ≥ 1.
        guess: where to begin, ≥ 1; a guess that is right costs two calls, one that is d off some 2 log₂ d.

    Returns:
        K, or None.
    """
    reaches = cache(lambda K: error(K) <= goal)
    low = high = min(guess, most)
    step = 1
    while high < most and not reaches(high):
        low, high, step = high, min(high + step, most), 2 * step
    if not reaches(high):
        return None
    if low == high:
        while low > 1 and reaches(low):
            low, high, step = max(low - step, 1), low, 2 * step
    if reaches(low):
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high
