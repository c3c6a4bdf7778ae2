"""Handwritten code, which the library must beat: textbook CG on handwritten products.

All return the hypergradient, flat, after K products.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.case import Case
from hypergrad.core.autodiff import flatten, leaves

Product = Callable[[Tensor], Tensor]


def on_retained_graph(case: Case, num_products: int) -> Tensor:
    """CG on products from one retained graph: the shortest possible loop."""
    b, product, mixed = retained_graph(case)
    return -mixed(conjugate_gradient(product, b, num_products))


def retained_graph(case: Case) -> tuple[Tensor, Product, Product]:
    """∂f/∂w, v ↦ (∂²g/∂w² + δI) v and v ↦ (∂²g/∂λ∂w) v on flat vectors."""
    params, hparams = leaves(case.params), leaves(case.hparams)
    w, l2 = tuple(params.values()), tuple(hparams.values())
    outer = torch.autograd.grad(case.problem.outer_loss(params, hparams, None), w)
    inner = torch.autograd.grad(case.problem.inner_loss(params, hparams, None), w, create_graph=True)
    gradient = _flat(inner)

    def hessian(v: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(gradient, w, v, retain_graph=True))

    def mixed(v: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(gradient, l2, v, retain_graph=True))

    return _flat(outer), (lambda v: hessian(v) + case.damping * v) if case.damping else hessian, mixed


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return tensors[0].view(-1) if len(tensors) == 1 else torch.cat([t.reshape(-1) for t in tensors])


def on_closed_form(case: Case, num_products: int) -> Tensor:
    """CG on the Hessian product written out."""
    b, product = closed_form(case)
    return -flatten(case.params) * conjugate_gradient(product, b, num_products)


def closed_form(case: Case) -> tuple[Tensor, Product]:
    """∂f/∂w and v ↦ (∂²g/∂w² + δI) v on flat vectors."""
    params = leaves(case.params)
    outer = torch.autograd.grad(case.problem.outer_loss(params, case.hparams, None), tuple(params.values()))
    return _flat(outer), case.problem.hessian_product(case.params, flatten(case.hparams) + case.damping)


def conjugate_gradient(product: Product, b: Tensor, num_products: int, tol: float = 0.0) -> Tensor:
    """Textbook CG from zero, until ‖r‖ ≤ tol ‖b‖ if that is asked for."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = (r * r).sum()
    goal = tol**2 * rr.item()
    for _ in range(num_products):
        Ap = product(p)
        alpha = rr / (p * Ap).sum()
        x = x + alpha * p
        r = r - alpha * Ap
        rr, previous = (r * r).sum(), rr
        p = r + rr / previous * p
        if tol > 0 and rr.item() <= goal:
            break
    return x
