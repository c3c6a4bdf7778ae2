"""Taylor-mode arithmetic: truncated polynomials that PyTorch functions accept as tensors.

Each file holds the rules of one kind of function. Imports only from `core`.
"""

from hypergrad.taylor import (
    algebraic,
    analytic,
    collective,
    gradient,
    linear,
    loss,
    matrix,
    moment,
    multilinear,
    piecewise,
    softmax,
    special,
)
from hypergrad.taylor.polynomial import Polynomial

RULES = (
    algebraic,
    analytic,
    collective,
    gradient,
    linear,
    loss,
    matrix,
    moment,
    multilinear,
    piecewise,
    softmax,
    special,
)
"""The modules whose import registers the rules."""

__all__ = ["RULES", "Polynomial"]
