"""Taylor-mode arithmetic: truncated polynomials that PyTorch functions take for tensors."""

from hypergrad.taylor import algebraic, analytic, linear, loss, moment, multilinear, piecewise, softmax
from hypergrad.taylor.polynomial import Polynomial

__all__ = ["Polynomial", "algebraic", "analytic", "linear", "loss", "moment", "multilinear", "piecewise", "softmax"]
