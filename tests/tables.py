"""The problems with known answers that the tests are parametrised with, and the errors against them."""

from collections.abc import Callable

import torch
from torch import Tensor

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, flatten, leaves
from hypergrad.data.tables import Split, Splits, diabetes

Known = hg.Ridge | hg.Quadratic


def in_float64(make: Callable[[], Known]) -> Known:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return make()
    finally:
        torch.set_default_dtype(before)


def synthetic(seed: int, *, n: int = 30, p: int = 5) -> Splits:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(p, generator=generator)

    def split() -> Split:
        X = torch.randn(n, p, generator=generator) * torch.linspace(0.5, 2, p)
        return Split(X, X @ truth + torch.randn(n, generator=generator))

    return Splits(split(), split(), split())


PROBLEMS: dict[str, Known] = {
    name: in_float64(make)
    for name, make in {
        "ridge": lambda: hg.Ridge(diabetes(seed=1)),
        "ridge-per-feature": lambda: hg.Ridge(synthetic(0), l2=0.3, per_feature=True),
        "quadratic": lambda: hg.Quadratic(size=7),
        "quadratic-stiff": lambda: hg.Quadratic(size=13, condition=60.0, curvature=5.0, penalty=0.02, seed=3),
    }.items()
}


def relative_error(found: Tensors, truth: Tensors) -> float:
    """The largest relative error over the hyperparameters."""
    assert found.keys() == truth.keys()
    return max(((found[k] - truth[k]).norm() / truth[k].norm()).item() for k in truth)


def grad_of(function: Callable[[Tensors], Tensor], hparams: Tensors) -> Tensors:
    """The gradient by plain autograd."""
    point = leaves(hparams)
    return dict(zip(point, torch.autograd.grad(function(point), tuple(point.values())), strict=True))


def as_matrix(problem: hg.InnerProblem, params: Tensors, hparams: Tensors) -> tuple[Tensor, Tensor, Tensors]:
    """The dense Hessian of the inner loss, ∂f/∂w, and the mixed derivatives ∂(∇_w g)/∂λ, by torch.func."""
    from torch.func import grad, jacrev

    from hypergrad.core.autodiff import unflatten

    def inner_gradient(w: Tensor, hp: Tensors) -> Tensor:
        return grad(lambda v: problem.inner_loss(unflatten(v, params), hp, problem.inner_batch(0)))(w)

    w = flatten(params)
    hessian = jacrev(inner_gradient)(w, hparams)
    mixed = jacrev(inner_gradient, argnums=1)(w, hparams)
    df_dw = grad(lambda v: problem.outer_loss(unflatten(v, params), hparams, problem.outer_batch(0)))(w)
    return hessian, df_dw, mixed
