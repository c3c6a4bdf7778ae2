"""A handwritten loop: train with L-BFGS, solve for the adjoint by CG, step log λ with Adam. Plain torch."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Point(NamedTuple):
    """The losses at one λ, and the seconds since the loop began."""

    seconds: float
    dev: float
    test: float


def tune(
    parts: Sequence[tuple[Tensor, Tensor]],
    per: str,
    *,
    init: float,
    steps: int,
    lr: float,
    tol: float,
    evaluations: Callable[[], None] = lambda: None,
) -> list[Point]:
    """The losses at every outer step of softmax regression with penalties λ_j w_j², all from w = 0 and λ = `init`.

    Training and adjoint start from the last ones; ‖∇g‖ ≤ tol ‖∇g(0)‖ and ‖b − H v‖ ≤ tol ‖b‖.

    Args:
        parts: train, dev and test, each (X, y) with X of shape (n, 64) and ten classes.
        per: "all" for one λ, "output" for one per class, "feature" for one per pixel.
        init: λ at the start.
        steps: of Adam.
        lr: of Adam, on log λ.
        tol: the inner tolerance.
        evaluations: called at every gradient and product, to count them.
    """
    begin = time.process_time()
    (X, y), (X_dev, y_dev), (X_test, y_test) = parts
    shape = {"all": (), "output": (10, 1), "feature": (64,)}[per]
    u = torch.full(shape, init, dtype=X.dtype).log().requires_grad_()
    W = torch.zeros(10, 64, dtype=X.dtype, requires_grad=True)
    v = torch.zeros_like(W)
    adam = torch.optim.Adam([u], lr=lr)

    def inner(W: Tensor, u: Tensor) -> Tensor:
        return cross_entropy(X @ W.T, y) + (u.exp() * W**2).sum()

    goal = tol * torch.autograd.grad(inner(W, u.detach()), W)[0].norm()
    points: list[Point] = []
    for _ in range(steps + 1):
        _train(inner, W, u.detach(), goal, evaluations)
        dev = cross_entropy(X_dev @ W.T, y_dev)
        b = torch.autograd.grad(dev, W)[0]
        with torch.no_grad():
            test = cross_entropy(X_test @ W.T, y_test)
        points.append(Point(time.process_time() - begin, dev.item(), test.item()))
        (grad,) = torch.autograd.grad(inner(W, u), W, create_graph=True)
        v = _solve(lambda p, grad=grad: torch.autograd.grad(grad, W, p, retain_graph=True)[0], b, v, tol, evaluations)
        (u.grad,) = torch.autograd.grad(grad, u, -v)
        adam.step()
    return points


class _Converged(Exception):  # noqa: N818
    """Training may stop at the weights that are being tried, which L-BFGS would not do by itself on the 2-norm."""


def _train(
    inner: Callable[[Tensor, Tensor], Tensor], W: Tensor, u: Tensor, goal: Tensor, evaluations: Callable[[], None]
) -> None:
    lbfgs = torch.optim.LBFGS(
        [W], max_iter=2000, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )

    def closure() -> Tensor:
        evaluations()
        loss = inner(W, u)
        (W.grad,) = torch.autograd.grad(loss, W)
        if W.grad.norm() <= goal:
            raise _Converged
        return loss

    with suppress(_Converged):
        lbfgs.step(closure)


def _solve(
    product: Callable[[Tensor], Tensor], b: Tensor, x: Tensor, tol: float, evaluations: Callable[[], None]
) -> Tensor:
    r = b - product(x)
    p, rr = r.clone(), r.square().sum()
    while rr.sqrt() > tol * b.norm():
        evaluations()
        Ap = product(p)
        alpha = rr / (p * Ap).sum()
        x, r = x + alpha * p, r - alpha * Ap
        rr, before = r.square().sum(), rr
        p = r + rr / before * p
    return x
