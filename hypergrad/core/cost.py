"""What was computed: gradients of the inner loss, and Hessian products spent in training."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PRODUCT = 2
"""Gradients that a Hessian product counts for: what it takes at most on a graph that is kept."""


class _Totals(threading.local):
    """What a thread has computed so far."""

    gradients = 0
    matvecs = 0


_TOTALS = _Totals()


@dataclass
class Spent:
    """What was computed while counting, by whatever code it was.

    Attributes:
        gradients: of the inner loss with respect to the parameters, those of line searches and of looks at the gradient
            norm too.
        matvecs: Hessian products of training, such as Newton's; those of a hypergradient are in its stats.
    """

    gradients: int = 0
    matvecs: int = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add what is computed within, also where an error ends it."""
        gradients, matvecs = _TOTALS.gradients, _TOTALS.matvecs
        try:
            yield
        finally:
            self.gradients += _TOTALS.gradients - gradients
            self.matvecs += _TOTALS.matvecs - matvecs


def spend(*, gradients: int = 0, matvecs: int = 0) -> None:
    """Tell whoever is counting in this thread."""
    _TOTALS.gradients += gradients
    _TOTALS.matvecs += matvecs
