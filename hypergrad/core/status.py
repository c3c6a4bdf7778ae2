"""How an iteration ended."""

from enum import StrEnum


class Status(StrEnum):
    """How training, or a linear solver, ended; each value is the word for it in logs, and equal to that string."""

    CONVERGED = "converged"
    """The tolerance was met."""
    MAX_ITER = "max_iter"
    """The steps, products or terms ran out first."""
    RISING = "rising"
    """The steps ran out first, and the inner loss is higher than at the start."""
    STAGNATED = "stagnated"
    """Rounding errors allow no further step."""
    INCONSISTENT = "inconsistent"
    """The matrix is singular, and no vector has a smaller residual."""
    NOT_REQUIRED = "not_required"
    """No tolerance was asked for."""
