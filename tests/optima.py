"""Inner problems with their solutions, for the tests of sensitivity."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, hessian
from torch.nn.functional import softplus

torch.set_default_dtype(torch.float64)
_generator = torch.Generator().manual_seed(1)
_A = torch.rand(4, 4, generator=_generator)
A = _A @ _A.T + torch.eye(4)
DELTA = torch.rand(3, generator=_generator)
HPAR0 = torch.zeros(3)


def seed_objective(par: Tensor, hyperpar: Tensor) -> Tensor:
    """The objective of the notebook that this feature started from, in dimensions 4 and 3."""
    return 0.5 * torch.dot(par, A @ par) + torch.mean(par - 0.5) ** 5 * torch.mean(hyperpar - 0.5) ** 5


X = torch.randn(60, 5, generator=_generator) * torch.linspace(0.5, 2, 5)
Y = (X @ torch.randn(5, generator=_generator) + torch.randn(60, generator=_generator) > 0).to(X)


def logistic_objective(w: Tensor, weights: Tensor) -> Tensor:
    """Weighted logistic regression with an L2 penalty."""
    z = X @ w
    return (weights * (softplus(z) - Y * z)).sum() + w @ w


def minimise(objective: Callable[[Tensor, Tensor], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    """λ ↦ argmin, by Newton's method with dense derivatives of `torch.func`, as an independent truth."""

    def solve(hyperpar: Tensor) -> Tensor:
        w = torch.zeros(size)
        for _ in range(30):
            step = torch.linalg.solve(hessian(objective)(w, hyperpar), grad(objective)(w, hyperpar))
            w = w - step
            if step.norm() < 1e-12 * w.norm():  # the last step brought the error far below that
                break
        return w

    return solve


SEED = (seed_objective, minimise(seed_objective, 4), HPAR0, DELTA)
LOGISTIC = (
    logistic_objective,
    minimise(logistic_objective, 5),
    torch.ones(60),
    torch.rand(60, generator=_generator) - 0.5,
)
OPTIMA = {"seed": SEED, "logistic": LOGISTIC}
torch.set_default_dtype(torch.float32)


def central_jacobian(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """∂function/∂x by central differences, shape (*out, *x)."""
    columns = []
    for i in range(x.numel()):
        e = torch.zeros_like(x).reshape(-1)
        e[i] = step
        e = e.view_as(x)
        columns.append((function(x + e) - function(x - e)) / (2 * step))
    return torch.stack(columns, dim=-1).reshape(*columns[0].shape, *x.shape)
