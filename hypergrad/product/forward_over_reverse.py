"""Products by forward mode over reverse mode."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.compile.cache import WeakCache
from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.operator import Operator, columns_of
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.evaluation import InnerEvaluation, require_finite
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.second_derivatives import require_second_derivatives
from hypergrad.product.base import Product, Stationarity, kronecker_of, require_minimisation, shapes_of
from hypergrad.product.reverse import Reverse
from hypergrad.taylor.elementary import Elementary

_CHECKED = WeakCache[float | None]()
"""Problems on which a product agreed with `Reverse`, with the inaccuracy of both."""


@dataclass(frozen=True, kw_only=True)
class ForwardOverReverse(Product):
    """H v as the derivative of ∇_w g along v: keeps no graph of the gradient; each product needs a forward pass.

    It needs less memory than `Reverse` and, eagerly on a CPU, three to ten times the time. φ must be ∇_w g, because
    forward mode gives (∂φ/∂w) v, which is the transposed product only if ∂φ/∂w is symmetric. The first product on a
    problem is checked against `Reverse`.

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation (1994).
    """

    def linearize(self, oracle: Oracle, params: Tensors) -> Stationarity:
        require_minimisation(self, oracle.problem)
        require_second_derivatives(oracle.problem, type(self).__name__)
        w, product = self._product(oracle, params)

        def check() -> float | None:
            exact = Reverse().linearize(oracle, params)
            _require_agreement(product, exact, oracle.problem)
            return None if exact.product.inaccuracy is None else exact.product.inaccuracy()

        inexact = _CHECKED.get(oracle.problem, None, check)

        def mixed(v: Tensor) -> Mapping[str, Tensor | None]:
            return Reverse().linearize(oracle, params).mixed(v)

        with torch.no_grad():
            loss, phi = oracle(params)
        evaluation = InnerEvaluation.of(loss, flatten(phi))
        require_finite(evaluation, oracle.hparams)
        operator = Operator(
            product,
            columns_of(product),
            shapes_of(params),
            dtype=w.dtype,
            inaccuracy=None if inexact is None else lambda: inexact,
            kronecker=kronecker_of(oracle, params),
        )
        return Stationarity(evaluation, flatten(phi), operator, mixed)

    @staticmethod
    def _product(oracle: Oracle, params: Tensors) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        w = flatten(params).detach()

        def gradient(at: Tensor) -> Tensor:
            with Elementary():
                return torch.func.grad(lambda u: oracle.loss(unflatten(u, params)))(at)

        return w, lambda v: torch.func.jvp(gradient, (w,), (v,))[1].detach()


def _require_agreement(product: Callable[[Tensor], Tensor], exact: Stationarity, problem: InnerProblem) -> None:
    """Check one product against reverse mode: torch's forward mode is wrong for some operations, without an error.

    Raises:
        ValueError: if forward mode has no rule for an operation of the inner loss, or a wrong one.
    """
    n, name = exact.phi.shape, type(problem).__name__
    v = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=exact.phi.dtype).to(exact.phi)
    wanted = exact.product(v)
    try:
        found = product(v)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"ForwardOverReverse cannot serve the inner loss of {name}: {reason}. Use Reverse (product=reverse)."
        ) from error
    # Relative to the gradient too, so that a Hessian that is zero up to rounding passes.
    size = max(torch.linalg.vector_norm(x).item() for x in (wanted, exact.phi)) or 1.0
    off = torch.linalg.vector_norm(found - wanted).item() / size
    inexact = exact.product.inaccuracy
    eps = torch.finfo(v.dtype).eps if inexact is None else inexact()
    if not off <= eps**0.5:
        raise ValueError(
            f"ForwardOverReverse is off by {off:.1e} from Reverse on the inner loss of {name}: in torch's "
            "forward mode an operation in it is wrong, or draws other random numbers. Use Reverse (product=reverse)."
        )
