"""The Taylor rule of a gradient that a function computes itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from hypergrad.core.autodiff import GRADIENTS, Tensors
from hypergrad.taylor.polynomial import Polynomial, coefs_of, degree_of


def value_and_gradient(function: Callable[[Tensors], Tensor], params: Tensors) -> tuple[Tensor, Tensors]:
    """g(w(t)) and ∇g(w(t)) as polynomials; coefficient k of the gradient is ∂/∂w₀ of coefficient k of g."""
    degree = degree_of(*params.values())
    paths = {name: coefs_of(p, degree) for name, p in params.items()}

    def expansion(start: Tensors) -> tuple[Tensor, ...]:
        value = function({name: Polynomial([start[name], *coefs[1:]]) for name, coefs in paths.items()})
        coefs = coefs_of(value, degree)
        return tuple(torch.zeros_like(coefs[0]) if c is None else c for c in coefs)

    values, pull = torch.func.vjp(expansion, {name: coefs[0] for name, coefs in paths.items()})[:2]
    zeros = tuple(torch.zeros_like(value) for value in values)
    found = [pull((*zeros[:k], torch.ones_like(value), *zeros[k + 1 :]))[0] for k, value in enumerate(values)]
    return Polynomial(values), {name: Polynomial([grad[name] for grad in found]) for name in paths}


GRADIENTS[Polynomial] = value_and_gradient
