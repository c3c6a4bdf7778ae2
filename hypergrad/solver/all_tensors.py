"""Arithmetic on all tensors of a state, by one operation where no graph is kept: on a GPU each one is a launch."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.order import are_plain
from hypergrad.core.torch_internals.operations import foreach_add
from hypergrad.solver.coefficient import Coefficients

_FEW = 3
"""Tensors up to which an operation for each is as fast on a CPU, where there are no launches: measured."""


def scaled_sums(xs: Tensors, c: Mapping[str, float | Tensor], ys: Tensors, sign: int = 1) -> Tensors:
    """x ± c y for each tensor x by name, with its coefficient c: a number, of shape (), or shaped as x.

    It is one operation for many tensors if c is a number and no graph is kept, else one for each; the bits are the
    same.
    """
    # A number is the same for all tensors: only hyperparameters differ by group.
    number = next(iter(c.values()), 0.0)
    is_free = not isinstance(number, Tensor) and not torch.is_grad_enabled()
    if is_free and not _are_few(xs) and are_plain(xs.values()):
        sums = foreach_add(list(xs.values()), [ys[name] for name in xs], alpha=sign * number)
        return dict(zip(xs, sums, strict=True))
    return {name: _scaled_sum(x, c[name], ys[name], sign) for name, x in xs.items()}


def _are_few(xs: Tensors) -> bool:
    return len(xs) <= _FEW and all(x.is_cpu for x in xs.values())


def _scaled_sum(x: Tensor, c: float | Tensor, y: Tensor, sign: int) -> Tensor:
    return torch.addcmul(x, c, y, value=sign) if isinstance(c, Tensor) else x.add(y, alpha=sign * c)


def shared(coefficients: Coefficients, fields: Iterable[str], tensors: Tensors) -> list[float | Tensor] | None:
    """The coefficient of each of the fields, for an update of all tensors by one operation; None if each needs its own.

    That is so if a coefficient differs by tensor, if a graph is kept, or if the tensors are of several dtypes.
    """
    if torch.is_grad_enabled() or not are_plain(tensors.values()) or len({x.dtype for x in tensors.values()}) != 1:
        return None
    found: list[float | Tensor] = []
    for name in fields:
        first, *others = coefficients[name].values()
        if any(other is not first for other in others) or isinstance(first, Tensor) and first.ndim > 0:
            return None
        found.append(first)
    return found
