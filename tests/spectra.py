"""Matrices with known spectra, and the linear solvers that are tested on them."""

import pytest
import torch
from torch import Tensor

import hypergrad as hg

N = 23  # a multiple of nothing


def spd(eigenvalues: Tensor, seed: int = 0) -> Tensor:
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return Q @ (eigenvalues[:, None].double() * Q.T)


def rhs(n: int = N) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


SPECTRA = {
    "one eigenvalue": torch.full((N,), 2.5),
    "two eigenvalues": torch.tensor([0.5] * 9 + [4.0] * (N - 9)),
    "spread": torch.linspace(0.3, 7.0, N),
    "condition 1e3": torch.logspace(-2, 1, N),
    "condition 1e8": torch.logspace(-6, 2, N),
    "one parameter": torch.tensor([0.7]),
}
# The smallest residual that rounding allows, ε ‖A‖ ‖x‖ / ‖b‖, is about 1e-8 at condition 1e8.
REACHABLE = {"condition 1e8": 1e-6}
SOLVERS: dict[str, hg.LinearSolver] = {
    "cg": hg.CG(max_iter=5000, tol=1e-10),
    "neumann": hg.Neumann(num_terms=40_000, tol=1e-10),
    "auto": hg.Auto(),
    "dense": hg.Dense(),
    "dense-lu": hg.Dense(definite=False),
    "cg-jacobi": hg.CG(max_iter=5000, tol=1e-10, preconditioner=hg.Jacobi()),
    "cg-nystrom": hg.CG(max_iter=5000, tol=1e-10, preconditioner=hg.Nystrom(rank=8)),
    "minres": hg.MINRES(max_iter=5000, tol=1e-10),
    "gmres": hg.GMRES(max_iter=5000, tol=1e-10),
    "gmres-restarted": hg.GMRES(max_iter=20_000, tol=1e-10, restart=18),
}
ITERATIVE = {name: solver for name, solver in SOLVERS.items() if not isinstance(solver, hg.Dense)}
EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


class Counted:
    def __init__(self, A: Tensor) -> None:
        self.A, self.count = A, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.count += 1
        return self.A @ v
