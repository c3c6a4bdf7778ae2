"""Products by centred differences of first-order gradients."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves, unflatten
from hypergrad.core.local_shard import standard_normal
from hypergrad.core.operator import Operator
from hypergrad.core.order import first_order
from hypergrad.core.validation import require_real
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.evaluation import InnerEvaluation, require_finite
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import InPrecision
from hypergrad.problem.rounding import rounding
from hypergrad.product.base import Product, Stationarity, kronecker_of, require_minimisation, shapes_of
from hypergrad.product.reverse import Reverse

_PROBES = 3
"""Products whose error is measured. A judgement: the largest of three is rarely much smaller than a typical one."""


@dataclass(frozen=True, kw_only=True)
class CentredDifferences(Product):
    """H v ≈ (∇_w g(w + h v) − ∇_w g(w − h v)) / 2h, and the mixed product from the same differences of ∇_λ g.

    A product requires two gradients, but no second derivative and no graph, so it also serves models with
    operations that cannot be differentiated twice. The error is O(h²) in exact arithmetic and O(ε/h) by rounding; h
    balances the two for parameters and curvature of order 1. How large it is at a point, relative to H v, is measured
    by differences with h and 2h, if a solver asks for it. Both sides use the same batch. φ must be ∇_w g.

    Attributes:
        step: h ‖v‖ / max(‖w‖, 1) (dimensionless), > 0; None uses ε^⅓ of the dtype, 6e-6 in float64, 5e-3 in float32.

    Source: Vieira, "Gradient-based hyperparameter optimization and the implicit function theorem" (2016); Pearlmutter,
    "Fast exact multiplication by the Hessian", Neural Computation (1994).
    """

    step: float | None = None

    def __post_init__(self) -> None:
        if self.step is not None:
            require_real(self, "step", above=0)

    @property
    def reference(self) -> Product:
        return Reverse()

    def linearize(self, oracle: Oracle, params: Tensors) -> Stationarity:
        require_minimisation(self, oracle.problem)
        _require_resolved(oracle.problem)
        w = flatten(params).detach()
        here = _gradients(oracle, unflatten(w, params))
        evaluation = InnerEvaluation.of(here.loss, here.wrt_w)
        require_finite(evaluation, oracle.hparams)
        eps = max(torch.finfo(w.dtype).eps, rounding(oracle.problem, "inner", here.loss))
        length = (self.step or eps ** (1 / 3)) * max(torch.linalg.vector_norm(w).item(), 1.0)

        def gradients(at: Tensor) -> _Gradients:
            return _gradients(oracle, unflatten(at, params))

        def difference(v: Tensor, stretch: float = 1.0) -> tuple[Tensor, dict[str, Tensor | None]]:
            size = torch.linalg.vector_norm(v).double()
            # A tensor, because `item` would wait for a GPU; a number over a tensor would be rounded twice.
            h = torch.where(size > 0, size.new_full((), stretch * length) / size, 1.0)
            return _quotients(gradients(w + h * v), gradients(w - h * v), 2 * h)

        def inaccuracy() -> float:
            return max(_apart(difference(v)[0], difference(v, 2.0)[0]) for v in _probes(w))

        product = Operator(
            lambda v: difference(v)[0],
            shapes=shapes_of(params),
            dtype=w.dtype,
            inaccuracy=inaccuracy,
            kronecker=kronecker_of(oracle, params),
        )
        return Stationarity(evaluation, here.wrt_w, product, lambda v: difference(v)[1])


def _require_resolved(problem: InnerProblem) -> None:
    """Require that differences of gradients are more than rounding of the gradients themselves.

    Raises:
        ValueError: if the gradients are rounded to bfloat16.
    """
    if isinstance(problem, InPrecision) and problem.precision == "bf16-true":
        raise ValueError(
            "CentredDifferences needs gradients of more digits than precision='bf16-true' leaves, which rounds them to "
            "bfloat16: the differences that matter are lost. Use precision='bf16-mixed', or Reverse (product=reverse)."
        )


def _probes(like: Tensor) -> list[Tensor]:
    """Random vectors along which the error of a product is measured."""
    generator = torch.Generator().manual_seed(0)
    return [standard_normal(like, generator) for _ in range(_PROBES)]


def _apart(x: Tensor, y: Tensor) -> float:
    """‖x − y‖ / ‖x‖, and 1 if both are 0 or one is not finite."""
    ratio = (torch.linalg.vector_norm(x - y) / torch.linalg.vector_norm(x)).item()
    return ratio if ratio < torch.inf else 1.0


class _Gradients(NamedTuple):
    """The inner loss, its gradient with respect to w, flat, and with respect to λ by name.

    What is left of the graph of the loss says in which precision it was computed; it holds no activations.
    """

    loss: Tensor
    wrt_w: Tensor
    wrt_hp: dict[str, Tensor | None]


def _gradients(oracle: Oracle, params: Tensors) -> _Gradients:
    w, hp = leaves(params), leaves(oracle.hparams)

    @torch.enable_grad()
    def differentiated() -> tuple[Tensor, tuple[Tensor | None, ...]]:
        loss = replace(oracle, hparams=hp).loss(w)
        return loss, torch.autograd.grad(loss, (*w.values(), *hp.values()), allow_unused=True)

    loss, grads = first_order(differentiated)
    pairs = zip(w.items(), grads[: len(w)], strict=True)
    wrt_w = {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}
    return _Gradients(loss, flatten(wrt_w), dict(zip(hp, grads[len(w) :], strict=True)))


def _quotients(ahead: _Gradients, behind: _Gradients, width: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The differences of both gradients, divided by `width`."""
    mixed: dict[str, Tensor | None] = {}
    for name, a in ahead.wrt_hp.items():
        b = behind.wrt_hp[name]
        # A tensor of shape () over another one would take the dtype of `width`.
        mixed[name] = None if a is None or b is None else ((a - b) / width).to(a)
    return (ahead.wrt_w - behind.wrt_w) / width, mixed
