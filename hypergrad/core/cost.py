"""Counts of the gradients of the inner loss and of the Hessian products that were computed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PRODUCT = 2
"""Gradients that a Hessian product counts as: the most that it costs on a graph that is kept."""


class _Totals(threading.local):
    """The counts of a thread so far."""

    gradients = 0
    matvecs = 0


_TOTALS = _Totals()


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
        gradients, matvecs = _TOTALS.gradients, _TOTALS.matvecs
        try:
            yield
        finally:
            self.gradients += _TOTALS.gradients - gradients
            self.matvecs += _TOTALS.matvecs - matvecs


def spend(*, gradients: int = 0, matvecs: int = 0) -> None:
    """Count gradients and Hessian products in this thread."""
    _TOTALS.gradients += gradients
    _TOTALS.matvecs += matvecs
