"""Optima with a direction in their hyperparameters, and the ways in this process to differentiate along it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import grad, hessian
from torch.nn.functional import softplus

import hypergrad as hg

ORDERS = (1, 2, 3, 4)
Work = Callable[[int], Tensor]
"""An order k ↦ the derivative of order k."""


@dataclass(frozen=True)
class Problem:
    """An objective with its data, a solution and a direction in its hyperparameters."""

    objective: Callable[[Tensor, Tensor], Tensor]
    data: dict[str, Tensor]

    @classmethod
    def seed(cls) -> "Problem":
        """The objective of the vittles notebook, in dimensions 4 and 3."""
        generator = torch.Generator().manual_seed(0)
        A = torch.rand(4, 4, generator=generator)
        data = {"A": A @ A.T + torch.eye(4), "hp": torch.zeros(3), "delta": 0.1 * torch.rand(3, generator=generator)}

        def objective(w: Tensor, hp: Tensor) -> Tensor:
            return 0.5 * torch.dot(w, data["A"] @ w) + torch.mean(w - 0.5) ** 5 * torch.mean(hp - 0.5) ** 5

        return cls(objective, data | {"w": _minimum(objective, 4, data["hp"])})

    @classmethod
    def logistic(cls, n: int, p: int) -> "Problem":
        """Logistic regression with a penalty ½‖w‖², λ the weights of its n examples."""
        generator = torch.Generator().manual_seed(0)
        X = torch.randn(n, p, generator=generator)
        y = (X @ torch.randn(p, generator=generator) / p**0.5 + torch.randn(n, generator=generator) > 0).to(X)
        data = {"X": X, "y": y, "hp": torch.ones(n), "delta": torch.rand(n, generator=generator) - 0.5}

        def objective(w: Tensor, weights: Tensor) -> Tensor:
            z = X @ w
            return (weights * (softplus(z) - y * z)).sum() + 0.5 * w.square().sum()

        return cls(objective, data | {"w": _minimum(objective, p, data["hp"])})

    def contestants(self) -> dict[str, Callable[[], Work]]:
        """The contestants of this process; each constructs what its derivatives share."""
        found: dict[str, Callable[[], Work]] = {"hypergrad, eager": self._expansions}
        if "X" in self.data:
            found["the recursion by hand"] = self._by_hand
        return found

    def nested(self) -> Work:
        """Nested `torch.func.jvp` of `hg.argmin`."""
        w, hp, delta = (self.data[name] for name in ("w", "hp", "delta"))
        jvps: list[Callable[..., Tensor]] = [hg.argmin(self.objective, w, hp)]
        for _ in ORDERS:
            jvps.append(hg.append_jvp(jvps[-1]))
        return lambda order: jvps[order](hp, *[delta] * order)

    def compiled(self) -> tuple[Work, float]:
        """The compiled expansion, and the seconds that it took to compile for all orders."""
        begin = time.perf_counter()
        work = self._expansions(compile=True)
        for order in ORDERS:
            work(order)
        return work, time.perf_counter() - begin

    def _expansions(self, *, compile: bool = False) -> Work:
        w, hp, delta = (self.data[name] for name in ("w", "hp", "delta"))
        expansion = hg.TaylorExpansion(order=1, compile=compile).at(self.objective, w, hp)
        expansion.optimum.inverse  # noqa: B018 (the factorisation)
        expansions = {order: replace(expansion, order=order) for order in ORDERS}
        return lambda order: expansions[order].derivatives(delta)[-1]

    def _by_hand(self) -> Work:
        """The recursion for weighted logistic regression written out."""
        X, y, w, omega, delta = (self.data[name] for name in ("X", "y", "w", "hp", "delta"))
        p0 = torch.sigmoid(X @ w)
        factor = torch.linalg.cholesky((X.T * (omega * p0 * (1 - p0))) @ X + torch.eye(len(w)))

        def derivative(order: int) -> Tensor:
            z, p, u = [X @ w], [p0], [p0 * (1 - p0)]
            term = w
            for k in range(1, order + 1):
                known = sum((j * z[j] * u[k - j] for j in range(1, k)), torch.zeros_like(p0)) / k
                residual = omega * known + delta * (p[k - 1] - y if k == 1 else p[k - 1])
                term = -torch.cholesky_solve((X.T @ residual)[:, None], factor)[:, 0]
                z.append(X @ term)
                p.append(known + z[k] * u[0])
                u.append(p[k] - sum(p[i] * p[k - i] for i in range(k + 1)))
            return term * torch.arange(1, order + 1).prod()

        return derivative


def _minimum(objective: Callable[[Tensor, Tensor], Tensor], size: int, hp: Tensor) -> Tensor:
    w = torch.zeros(size)
    for _ in range(12):
        w = w - torch.linalg.solve(hessian(objective)(w, hp), grad(objective)(w, hp))
    return w
