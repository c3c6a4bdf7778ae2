"""Taylor-mode arithmetic: truncated polynomials that PyTorch functions take for tensors."""

from hypergrad.taylor import analytic, composite, linear, multilinear
from hypergrad.taylor.polynomial import Polynomial

__all__ = ["Polynomial", "analytic", "composite", "linear", "multilinear"]
