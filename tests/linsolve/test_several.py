"""Several right-hand sides at once."""

import pytest
import torch
from spectra import EVERY_SOLVER, SPECTRA, Counted, N, rhs, spd

import hypergrad as hg


def several(k: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@EVERY_SOLVER
@pytest.mark.parametrize("start", [False, True])
def test_every_solver_takes_several_right_hand_sides(solver, start):
    A, B = spd(SPECTRA["condition 1e3"]), several(4)
    B[:, 2] = 0
    B[:, 3] *= 1e6
    before, matvec = B.clone(), Counted(A)
    found = solver.solve(matvec, B, several(4).flip(0) if start else None)
    if isinstance(solver, hg.Neumann):
        solver = hg.Neumann(num_terms=40_000, tol=1e-10)
    assert torch.equal(B, before)
    assert found.converged
    assert found.num_matvecs == matvec.count
    truth = torch.linalg.solve(A, B)
    assert torch.equal(found.x[:, 2], torch.zeros(N, dtype=torch.float64))
    error = (found.x - truth).norm(dim=0) / truth.norm(dim=0).clamp_min(1)
    assert error.max() <= 1e3 * 1e-10
    residuals = (B - A @ found.x).norm(dim=0) / B.norm(dim=0)
    assert found.residual == pytest.approx(residuals.nan_to_num().max().item(), abs=1e-12)


@pytest.mark.parametrize("preconditioner", [None, hg.Jacobi(), hg.Nystrom(rank=8)], ids=["none", "jacobi", "nystrom"])
def test_a_block_spends_fewer_products_than_one_system_after_the_other(preconditioner):
    n = 300
    A, B = spd(torch.logspace(-3, 1, n)), several(6, n)
    cg = hg.CG(max_iter=5000, tol=1e-8, preconditioner=preconditioner)
    block, single = cg.solve(A.matmul, B), [cg.solve(A.matmul, b) for b in B.T]
    assert block.converged
    assert block.num_matvecs < 0.7 * sum(one.num_matvecs for one in single)
    assert (block.x - torch.linalg.solve(A, B)).norm() <= 1e-4 * block.x.norm()


def test_a_block_of_as_many_columns_as_parameters_takes_one_step():
    A = spd(SPECTRA["spread"])
    found = hg.CG(tol=1e-8).solve(A.matmul, several(N))
    assert found.num_matvecs == 2 * N  # and one block to check the residual


def test_linearly_dependent_right_hand_sides_cost_what_one_does():
    A, b = spd(SPECTRA["condition 1e3"]), rhs()
    found = hg.CG(tol=1e-10).solve(Counted(A), torch.stack([b, 2 * b, -b], dim=1))
    alone = hg.CG(tol=1e-10).solve(Counted(A), b)
    assert found.converged
    # the last true residual is computed for all three
    assert found.num_matvecs == pytest.approx(alone.num_matvecs + 2, abs=3)
    assert (found.x[:, 1] - 2 * found.x[:, 0]).norm() <= 1e-8 * found.x.norm()


def test_a_block_refuses_an_indefinite_matrix_with_its_curvature():
    A = spd(torch.cat([torch.tensor([-0.5]), torch.linspace(0.5, 3.0, N - 1)]))
    with pytest.raises(hg.IndefiniteError, match=r"met curvature .*-"):
        hg.CG().solve(A.matmul, several(5))
    with pytest.raises(hg.NonFiniteError, match="Product"):
        hg.CG().solve(lambda v: v * float("nan"), several(3))
