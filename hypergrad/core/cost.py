"""Counts of the gradients of the inner loss and of the Hessian products that were computed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PRODUCT = 2
"""Gradients that a Hessian product counts as: the most that it costs on a graph that is kept."""


@dataclass
class Spent:
    """What any code in this thread computed while counting.

    Attributes:
        gradients: of the inner loss with respect to the parameters, also in line searches and for gradient norms.
        matvecs: Hessian products in training, such as Newton's; those of a hypergradient are in its stats.
    """

    gradients: int = 0
    matvecs: int = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add what is computed within the context, also if an error ends it."""
        total = account()
        gradients, matvecs = total.gradients, total.matvecs
        try:
            yield
        finally:
            self.gradients += total.gradients - gradients
            self.matvecs += total.matvecs - matvecs


class _Thread(threading.local):
    """The counts of a thread so far."""

    def __init__(self) -> None:
        self.total = Spent()


_THREAD = _Thread()


def account() -> Spent:
    """The counts of this thread so far."""
    return _THREAD.total


@contextmanager
def charging(total: Spent) -> Iterator[None]:
    """A context in which this thread adds to `total`, the account of the thread for which it works."""
    before, _THREAD.total = _THREAD.total, total
    try:
        yield
    finally:
        _THREAD.total = before


def spend(*, gradients: int = 0, matvecs: int = 0) -> None:
    """Count gradients and Hessian products in this thread."""
    _THREAD.total.gradients += gradients
    _THREAD.total.matvecs += matvecs
