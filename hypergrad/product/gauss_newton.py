"""Products with the Gauss–Newton matrix."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves, vjp
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.second_derivatives import require_second_derivatives
from hypergrad.product.base import Product, Stationarity, require_minimisation
from hypergrad.product.reverse import Reverse

_SAME = 1e-4
"""How far a loss through its outputs may be from itself, relative: a judgement, as its terms are added up otherwise."""


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Product):
    """G v = Jᵀ (∂²ℓ/∂z²) J v + (∂²ℓ/∂w²) v instead of H v, for a loss g(w, λ) = ℓ(z(w), w, λ) of a model's outputs z.

    G is the Hessian of the loss with the model made linear, J = ∂z/∂w. It is positive semidefinite if ℓ is convex in
    (z, w), even if the Hessian is not, as in a network that is not fully trained. It equals the Hessian if the model
    fits the data or is linear. φ and the mixed derivatives stay exact; the hypergradient is biased by
    (H − G). The problem must define `outputs` and `loss_of_outputs`.

    Examples:
        >>> train, dev, test = hg.digits()
        >>> model, loss = hg.perceptron(64, 10, hidden=(5,)), torch.nn.CrossEntropyLoss()
        >>> problem = hg.Supervised(model=model, loss=loss, train=train, dev=dev, hyperparameters={"l2": hg.L2()})
        >>> estimator = hg.Implicit(solver=hg.Momentum(), inner_steps=20, product=hg.GaussNewton())
        >>> found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        >>> found.stats["adjoint_residual"] < 1e-3
        True

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural Computation
    (2002); Martens, "Deep learning via Hessian-free optimization", ICML (2010).
    """

    @property
    def reference(self) -> Product:
        return Reverse()

    def linearize(self, oracle: Oracle, params: Tensors) -> Stationarity:
        require_minimisation(self, oracle.problem)
        require_second_derivatives(oracle.problem, type(self).__name__)
        exact, w = Reverse().linearize(oracle, params), leaves(params)
        with torch.enable_grad():
            outputs = oracle.problem.outputs(w, oracle.hparams, oracle.batch)
            curvature = _curvature(oracle, outputs.detach().requires_grad_(), leaves(params), exact)
            transposed, jacobian = vjp(outputs.reshape(-1), w), _jacobian(outputs, w)
        size = outputs.numel()

        def product(v: Tensor) -> Tensor:
            curved = curvature(torch.cat([jacobian(v), v]))
            return transposed(curved[:size]) + curved[size:]

        return replace(exact, product=replace(exact.product, matvec=product, columns=None))


def _curvature(oracle: Oracle, z: Tensor, w: Tensors, exact: Stationarity) -> Callable[[Tensor], Tensor]:
    """The product with the Hessian of ℓ with respect to (z, w), on flat vectors."""
    loss = oracle.problem.loss_of_outputs(z, w, oracle.hparams, oracle.batch)
    inexact = exact.product.inaccuracy
    tol = _SAME if inexact is None else inexact()
    _require_same(exact.evaluation.loss, loss.item(), oracle.problem, tol)
    inputs = {"z": z, **{f"w {name}": p for name, p in w.items()}}
    grads = torch.autograd.grad(
        loss, tuple(inputs.values()), create_graph=True, allow_unused=True, materialize_grads=True
    )
    return vjp(flatten(dict(zip(inputs, grads, strict=True))), inputs)


def _jacobian(outputs: Tensor, w: Tensors) -> Callable[[Tensor], Tensor]:
    """The product J v on flat vectors: the derivative of Jᵀ u along v, which is linear in u."""
    u = torch.zeros_like(outputs).requires_grad_()
    pulled = torch.autograd.grad(
        outputs, tuple(w.values()), u, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return vjp(flatten(dict(zip(w, pulled, strict=True))), {"u": u})


def _require_same(inner_loss: float, through_outputs: float, problem: InnerProblem, tol: float) -> None:
    if not abs(inner_loss - through_outputs) <= tol * max(abs(inner_loss), abs(through_outputs), 1e-30):
        raise ValueError(
            f"{type(problem).__name__}.loss_of_outputs at `outputs` must be the inner loss, {inner_loss:.6g}, but it "
            f"is {through_outputs:.6g}."
        )
