"""SOBA and SABA written by hand on the two bilevel problems: in numpy with closed forms, and in torch with autograd.

λ is moved as u: λ itself on the quadratic, log λ on logistic regression.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.problem.bilevel_logistic import BilevelLogistic
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic
from benchmarks.problem.partitioned import Partition
from hypergrad.core.autodiff import flatten

Array = NDArray[np.float64]
Problem = BilevelQuadratic | BilevelLogistic


@dataclass(frozen=True)
class Steps:
    """The steps of a run.

    Attributes:
        num: how many.
        lr: of w and v.
        lr_hp: of u.
        decays: whether step t is divided by √(t + 1).
    """

    num: int
    lr: float
    lr_hp: float
    decays: bool = False

    def at(self, t: int) -> tuple[float, float]:
        """The steps of w and v, and of u, in step t."""
        factor = (t + 1) ** -0.5 if self.decays else 1.0
        return factor * self.lr, factor * self.lr_hp


def by_torch(problem: Problem, steps: Steps) -> Array:
    """u after SOBA by autograd."""
    grad, positive = torch.autograd.grad, isinstance(problem, BilevelLogistic)
    name, hp = next(iter(problem.init_hparams().items()))
    w, u = problem.init_params()["w"], hp.log() if positive else hp
    v = torch.zeros_like(w)
    for t in range(steps.num):
        w.requires_grad_()
        u.requires_grad_()
        hparams = {name: u.exp() if positive else u}
        g = problem.inner_loss({"w": w}, hparams, problem.inner_batch(t))
        (D_w,) = grad(g, w, create_graph=True)
        Hv, mixed = grad(D_w, (w, u), v)
        f = problem.outer_loss({"w": w}, hparams, problem.outer_batch(t))
        f_w, f_u = grad(f, (w, u), materialize_grads=True)
        lr, lr_hp = steps.at(t)
        with torch.no_grad():
            w, v, u = w - lr * D_w, v - lr * (Hv + f_w), u - lr_hp * (mixed + f_u)
    return u.detach().numpy()


Inner = Callable[[Array, Array, Array, Array, Array], tuple[Array, Array, Array]]
Outer = Callable[[Array, Array, Array, Array], tuple[Array, Array]]


def quadratic_inner(w: Array, v: Array, u: Array, X: Array, Y: Array) -> tuple[Array, Array, Array]:
    """∇_w g, ∇²_ww g v and ∇²_uw g v on a batch."""
    n, (x, b, c), a = len(X), X.swapaxes(0, 1), Y[:, 1]
    return ((x @ w) @ x + (a @ u) @ b) / n + c.mean(0), (x @ v) @ x / n, (b @ v) @ a / n


def quadratic_outer(w: Array, u: Array, X: Array, Y: Array) -> tuple[Array, Array]:
    """∇_w f and ∇_u f on a batch."""
    n, (x, b, c), (s, a, d) = len(X), X.swapaxes(0, 1), Y.swapaxes(0, 1)
    return ((x @ w) @ x + (a @ u) @ b) / n + c.mean(0), ((s @ u) @ s + (b @ w) @ a) / n + d.mean(0)


def logistic_inner(w: Array, v: Array, u: Array, X: Array, Y: Array) -> tuple[Array, Array, Array]:
    """∇_w g, ∇²_ww g v and ∇²_uw g v on a batch."""
    n, l2, p = len(X), np.exp(u), 1 / (1 + np.exp(Y * (X @ w)))
    return l2 * w - (Y * p) @ X / n, (p * (1 - p) * (X @ v)) @ X / n + l2 * v, l2 * w * v


def logistic_outer(w: Array, u: Array, X: Array, Y: Array) -> tuple[Array, Array]:
    """∇_w f and ∇_u f on a batch."""
    return -(Y / (1 + np.exp(Y * (X @ w)))) @ X / len(X), np.zeros_like(u)


def terms(problem: Problem) -> tuple[Inner, Outer]:
    """The derivatives of the losses of a problem."""
    if isinstance(problem, BilevelLogistic):
        return logistic_inner, logistic_outer
    return quadratic_inner, quadratic_outer


def start(problem: Problem) -> tuple[Array, Array, Array]:
    """w, v and u at the start."""
    w, hp = flatten(problem.init_params()).numpy(), flatten(problem.init_hparams()).numpy()
    return w, np.zeros_like(w), np.log(hp) if isinstance(problem, BilevelLogistic) else hp


Seen = Callable[[int, Array], None]


def by_numpy(problem: Problem, steps: Steps, seen: Seen = lambda t, u: None) -> Array:
    """u after SOBA; `seen` is told the u of each step before it moves."""
    (inner, outer), (w, v, u) = terms(problem), start(problem)
    X, Y, X_dev, Y_dev = (x.numpy() for x in (problem.X, problem.Y, problem.X_dev, problem.Y_dev))
    for t in range(steps.num):
        seen(t, u)
        i, j = problem.inner_partition.rows(t), problem.outer_partition.rows(t)
        D_w, Hv, mixed = inner(w, v, u, X[i], Y[i])
        f_w, f_u = outer(w, u, X_dev[j], Y_dev[j])
        lr, lr_hp = steps.at(t)
        w, v, u = w - lr * D_w, v - lr * (Hv + f_w), u - lr_hp * (mixed + f_u)
    return u


class _Table:
    """The last values of the terms on each batch of a partition, at first 0, and their mean weighted by the sizes."""

    def __init__(self, partition: Partition, size: int) -> None:
        self.partition, self.rows, self.mean = partition, np.zeros((partition.num_batches, size)), np.zeros(size)

    def corrected(self, t: int, new: Array) -> Array:
        """weight · (new − old) + mean for the terms on the batch of step t, which are then in the table."""
        j, place = self.partition.index(t), self.partition.place(t)
        change = place.weight * (new - self.rows[j])
        found = change + self.mean
        self.mean, self.rows[j] = self.mean + change / place.num_batches, new
        return found


def saba_by_numpy(problem: Problem, steps: Steps, seen: Seen = lambda t, u: None) -> Array:
    """u after SABA; `seen` is told the u of each step before it moves."""
    (inner, outer), (w, v, u) = terms(problem), start(problem)
    X, Y, X_dev, Y_dev = (x.numpy() for x in (problem.X, problem.Y, problem.X_dev, problem.Y_dev))
    n, p = len(w), len(u)
    tables = _Table(problem.inner_partition, 2 * n + p), _Table(problem.outer_partition, n + p)
    for t in range(steps.num):
        seen(t, u)
        i, j = problem.inner_partition.rows(t), problem.outer_partition.rows(t)
        g = tables[0].corrected(t, np.concatenate(inner(w, v, u, X[i], Y[i])))
        f = tables[1].corrected(t, np.concatenate(outer(w, u, X_dev[j], Y_dev[j])))
        lr, lr_hp = steps.at(t)
        w, v, u = w - lr * g[:n], v - lr * (g[n : 2 * n] + f[:n]), u - lr_hp * (g[2 * n :] + f[n:])
    return u
