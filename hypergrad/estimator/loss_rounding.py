"""What rounding inside the losses does to a hypergradient, from an evaluation in float64."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hypergrad.core.in_double import as_double, in_double
from hypergrad.estimator.linearization import Linearization
from hypergrad.estimator.norms import norm
from hypergrad.linsolve.inverse import Inverse
from hypergrad.product.reverse import Reverse

_SAME = 2.0**-12
"""Between a loss in float32 and in float64, relative: the root of ε. A judgement: more is worth a remark."""


@dataclass(frozen=True)
class InDouble:
    """A hypergradient without the rounding of the losses, and what it leaves.

    Attributes:
        grad: flat, from losses in float64, with the adjoint that solves its system there.
        rest: the residual of that system.
        shift: how far the solution moves.
        remark: which loss has lost digits, or is another function in float64; None if neither.
    """

    grad: Tensor
    rest: float
    shift: float
    remark: str | None


class NotMeasuredError(Exception):
    """Why there is no evaluation in float64."""


def measure(far: Linearization, v: Tensor, inverse: Inverse) -> InDouble:
    """Evaluate both losses once in float64, at the same numbers.

    Args:
        far: the linearisation in float32, near the solution.
        v: the adjoint there, shape (n,).
        inverse: of its Hessian.

    Raises:
        NotMeasuredError: if the losses cannot be evaluated in float64.
    """
    if far.point.oracle.problem.is_spread:  # a process alone may fail, and the others would wait for it
        raise NotMeasuredError("several processes share the problem")
    if v.device.type != "cpu":  # most GPUs compute in float64 at a thirtieth or less of their speed
        raise NotMeasuredError(f"float64 is slow on most devices of type {v.device.type}")
    try:
        with in_double():
            return _measured(far, v, inverse)
    except NotImplementedError as error:
        raise NotMeasuredError(str(error)) from error
    except Exception as error:  # a user's own loss may raise anything in another format
        raise NotMeasuredError(f"in float64 the losses raise {type(error).__name__}") from error


def _measured(far: Linearization, v: Tensor, inverse: Inverse) -> InDouble:
    oracle, w = far.point.oracle, far.point.params
    oracle = replace(oracle, hparams={name: as_double(x) for name, x in oracle.hparams.items()})
    params = {name: as_double(x) for name, x in w.items()}
    here = Linearization.at(replace(far.point, oracle=oracle, params=params, product=Reverse()))
    v = as_double(v)
    if here.inner.phi.dtype != torch.float64:
        raise TypeError("the gradient of the inner loss is not in float64")
    shift, _ = inverse.rough(here.inner.phi - far.inner.phi)
    more, rest = inverse.rough(here.df_dw - here.inner.product(v))
    return InDouble(here.gradient(v + more), norm(rest), norm(shift), _difference(far, here))


def _difference(single: Linearization, double: Linearization) -> str | None:
    for name, before, after in (
        ("outer", single.outer_loss, double.outer_loss),
        ("inner", single.inner.evaluation.loss, double.inner.evaluation.loss),
    ):
        if not abs(after - before) <= _SAME * max(abs(after), abs(before)):
            return f"the {name} loss is {before:.6g}, but {after:.6g} in float64"
    return None
