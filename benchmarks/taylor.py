"""Derivatives of an optimum of orders 1 to 4 along one direction, next to what others make of them.

python -m benchmarks.taylor [--peers PYTHON], where PYTHON has vittles and jax (scripts/peers-env)
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.func import grad, hessian
from torch.nn.functional import softplus

import hypergrad as hg
from benchmarks.measure import THREADS
from hypergrad.sensitivity.taylor_expansion import Expansion
from hypergrad.taylor.nested import append_jvp

ORDERS = (1, 2, 3, 4)
Work = Callable[[int], Tensor]


@dataclass(frozen=True)
class Problem:
    """An objective with its data, and a direction in its hyperparameters."""

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

    def contestants(self) -> tuple[dict[str, Work], dict[str, float]]:
        """Who runs in this process, and the seconds that each took to construct."""
        w, hp, delta = (self.data[name] for name in ("w", "hp", "delta"))
        works: dict[str, Work] = {}
        expansions: dict[int, Expansion] = {}
        seconds: dict[str, float] = {}
        for order in ORDERS:  # the first warms PyTorch up, the last is what counts
            begin = time.perf_counter()
            expansions[order] = hg.TaylorExpansion(order=order).at(self.objective, w, hp)
            expansions[order].optimum.inverse  # noqa: B018 (the factorisation)
            seconds["hypergrad"] = time.perf_counter() - begin
        works["hypergrad"] = lambda order: expansions[order].derivatives(delta)[-1]
        if "X" in self.data:
            begin = time.perf_counter()
            works["by hand"] = _by_hand(self.data)
            seconds["by hand"] = time.perf_counter() - begin
        function = hg.argmin(self.objective, w, hp)
        jvps: list[Callable[..., Tensor]] = [function]
        for _ in ORDERS:
            jvps.append(append_jvp(jvps[-1]))
        works["nested jvp of argmin"] = lambda order: jvps[order](hp, *[delta] * order)
        return works, seconds


def _minimum(objective: Callable[[Tensor, Tensor], Tensor], size: int, hp: Tensor) -> Tensor:
    w = torch.zeros(size)
    for _ in range(12):
        w = w - torch.linalg.solve(hessian(objective)(w, hp), grad(objective)(w, hp))
    return w


def _by_hand(data: dict[str, Tensor]) -> Work:
    """The recursion for weighted logistic regression written out."""
    X, y, w, omega, delta = (data[name] for name in ("X", "y", "w", "hp", "delta"))
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


class Peers:
    """A process that has the other libraries."""

    def __init__(self, python: str, data: dict[str, Tensor], folder: str) -> None:
        path = f"{folder}/data.npz"
        np.savez(path, **{name: value.numpy() for name, value in data.items()})  # type: ignore[arg-type]
        self.result = f"{folder}/result.npy"
        worker = Path(__file__).parent / "peers" / "with_vittles.py"
        self.process = subprocess.Popen(
            [python, str(worker), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.hello = json.loads(self.process.stdout.readline())

    def run(self, name: str, order: int, calls: int) -> tuple[float, Tensor]:
        """Seconds a call, and the derivative."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"contestant": name, "order": order, "calls": calls, "result": self.result}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        seconds = json.loads(self.process.stdout.readline())["seconds"]
        return seconds, torch.from_numpy(np.load(self.result))

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def race(title: str, problem: Problem, python: str | None, rounds: int, calls: int) -> None:
    """Time all contestants in turns, check the derivatives against each other, and print the table.

    Raises:
        RuntimeError: if a derivative differs by more than 1e-8.
    """
    works, construction = problem.contestants()
    with tempfile.TemporaryDirectory() as folder:
        peers = Peers(python, problem.data, folder) if python else None
        names = [*works, *(peers.hello["contestants"] if peers else [])]
        construction |= peers.hello["construction"] if peers else {}

        def once(name: str, order: int, calls: int) -> tuple[float, Tensor]:
            if name not in works:
                assert peers is not None
                return peers.run(name, order, calls)
            begin = time.perf_counter()
            for _ in range(calls):
                found = works[name](order)
            return (time.perf_counter() - begin) / calls, found

        times: dict[tuple[str, int], list[float]] = {(name, order): [] for name in names for order in ORDERS}
        for order in ORDERS:
            truth = once("hypergrad", order, 1)[1]
            for name in names:
                error = ((once(name, order, 1)[1] - truth).norm() / truth.norm()).item()
                if error > 1e-8:
                    raise RuntimeError(f"{title}: {name} is off by {error:.1e} at order {order}.")
        for turn in range(rounds):
            for order in ORDERS:
                for name in names[:: 1 if turn % 2 == 0 else -1]:
                    slow = name.startswith("nested")
                    times[name, order].append(once(name, order, 1 if slow else calls)[0])
        if peers:
            peers.close()
    table = Table("", *(f"order {k}, ms" for k in ORDERS), "construction, ms", title=title, title_justify="left")
    for name in names:
        cells = [f"{1e3 * statistics.median(times[name, order]):.2f}" for order in ORDERS]
        table.add_row(name, *cells, f"{1e3 * construction[name]:.1f}" if name in construction else "")
    Console(width=110).print(table)


def main() -> None:
    """Print one table per problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has vittles and jax")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.set_default_dtype(torch.float64)
    race("the seed's problem", Problem.seed(), options.peers, options.rounds, 5)
    race("logistic regression, n = 500, p = 20", Problem.logistic(500, 20), options.peers, options.rounds, 5)
    race("logistic regression, n = 2000, p = 100", Problem.logistic(2000, 100), options.peers, options.rounds, 3)


if __name__ == "__main__":
    main()
