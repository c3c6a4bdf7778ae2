"""Products with the Gauss–Newton matrix."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves, vjp
from hypergrad.core.operator import Operator
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Product, Stationarity, shapes_of
from hypergrad.product.reverse import Reverse


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Product):
    """G v = Jᵀ (∂²ℓ/∂z²) J v + (∂²ℓ/∂w²) v instead of H v, for a loss g(w, λ) = ℓ(z(w), w, λ) of a model's outputs z.

    The Hessian of the loss with the model made linear, J = ∂z/∂w: positive semidefinite wherever ℓ is convex in (z, w),
    also where the Hessian is not, as in a network that is not trained to its end; equal to it where the model fits the
    data or is linear. φ and the mixed derivatives stay exact; the hypergradient is biased by (H − G). The problem has
    to define `outputs` and `loss_of_outputs`.

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural Computation
    (2002); Martens, "Deep learning via Hessian-free optimization", ICML (2010).
    """

    def linearize(self, oracle: Oracle, params: Tensors) -> Stationarity:
        problem, hparams, batch = oracle.problem, oracle.hparams, oracle.batch
        if not problem.is_minimisation:
            raise ValueError(
                f"GaussNewton needs an optimality condition that is the gradient of the inner loss, but "
                f"{type(problem).__name__} has one of its own. Use Reverse."
            )
        exact = Reverse().linearize(oracle, params)
        w = leaves(params)
        with torch.enable_grad():
            outputs = problem.outputs(w, hparams, batch)
            z, w_direct = outputs.detach().requires_grad_(), leaves(params)
            loss = problem.loss_of_outputs(z, w_direct, hparams, batch)
            _require_same(exact.evaluation.loss, loss.item(), problem)
            inputs = {"z": z, **{f"w {name}": p for name, p in w_direct.items()}}
            grads = torch.autograd.grad(
                loss, tuple(inputs.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            curvature = vjp(flatten(dict(zip(inputs, grads, strict=True))), inputs)
            pull = vjp(outputs.reshape(-1), w)
            # J v is the derivative of the pull-back Jᵀ u along v, which is linear in u.
            u = torch.zeros_like(z).requires_grad_()
            pulled = torch.autograd.grad(
                outputs, tuple(w.values()), u, create_graph=True, allow_unused=True, materialize_grads=True
            )
            push = vjp(flatten(dict(zip(w, pulled, strict=True))), {"u": u})

        def product(v: Tensor) -> Tensor:
            curved = curvature(torch.cat([push(v), v]))
            return pull(curved[: z.numel()]) + curved[z.numel() :]

        return replace(exact, product=Operator(product, shapes=shapes_of(params), dtype=exact.phi.dtype))


def _require_same(inner: float, through_outputs: float, problem: InnerProblem) -> None:
    if not abs(inner - through_outputs) <= 1e-4 * max(abs(inner), abs(through_outputs), 1e-30):
        raise ValueError(
            f"{type(problem).__name__}.loss_of_outputs at `outputs` must be the inner loss, {inner:.6g}, but it is "
            f"{through_outputs:.6g}."
        )
