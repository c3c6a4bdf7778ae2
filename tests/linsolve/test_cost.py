"""The most that a solve takes is known before."""

import pytest
import torch

import hypergrad as hg
from hypergrad.linsolve.base import LinearSolver

SOLVERS = {
    "cg": hg.CG(),
    "cg, out of products": hg.CG(max_iter=5),
    "cg, all of its products": hg.CG(max_iter=7, tol=0.0),
    "cg, jacobi": hg.CG(preconditioner=hg.Jacobi(num_probes=3)),
    "cg, nystrom": hg.CG(preconditioner=hg.Nystrom(rank=5)),
    "minres": hg.MINRES(),
    "gmres": hg.GMRES(),
    "gmres, restarted": hg.GMRES(max_iter=100, restart=7),
    "neumann": hg.Neumann(),
    "neumann, scale": hg.Neumann(num_terms=9, scale=0.01, tol=0.0),
    "no term": hg.Neumann(num_terms=0),
    "nystrom": hg.Nystrom(rank=6),
    "dense": hg.Dense(chunk=16),
    "auto": hg.Auto(),
}


@pytest.mark.parametrize("n", [30, 130])
@pytest.mark.parametrize("name", SOLVERS)
def test_no_solve_takes_more_than_its_cost(name, n):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(2 * n, n, generator=generator, dtype=torch.float64)
    A, b = X.T @ X / n + torch.eye(n, dtype=torch.float64), torch.randn(n, generator=generator, dtype=torch.float64)
    widths = []

    def product(v):
        widths.append(1)
        return A @ v

    found, cost = SOLVERS[name].solve(product, b), SOLVERS[name].cost(n)
    assert cost is not None
    most = cost.products + sum(cost.blocks)
    assert 0 < found.num_matvecs <= most
    assert len(widths) <= most
    assert cost.vectors >= 1


@pytest.mark.parametrize("name", ["cg, all of its products", "neumann, scale", "no term", "nystrom"])
def test_a_solve_without_a_choice_takes_just_that(name):
    A = torch.diag(torch.linspace(1.0, 9.0, 40, dtype=torch.float64))
    cost = SOLVERS[name].cost(40)
    assert cost is not None
    found = SOLVERS[name].solve(lambda v: A @ v, torch.ones(40, dtype=torch.float64))
    assert found.num_matvecs == cost.products + sum(cost.blocks)


def test_a_solver_of_ones_own_need_not_say_it():
    class Mine(LinearSolver):
        def solve_unit(self, A, b, x0):
            return hg.CG().solve_unit(A, b, x0)

    assert Mine().cost(10) is None
    problem = hg.Ridge(hg.diabetes())
    plan = hg.Implicit(linsolve=Mine(), error_bar=False).plan(problem)
    assert plan.sure == "~"
    assert "unknown number in Mine" in str(plan)
