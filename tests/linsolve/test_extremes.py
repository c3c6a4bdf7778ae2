"""Curvatures near the ends of a format, and texts of refusals at exactly zero curvature."""

import pytest
import torch

import hypergrad as hg


@pytest.mark.parametrize("size", [1e-26, 1e26])
def test_nystrom_where_the_square_of_a_curvature_leaves_the_range(size):
    A = size * torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float32))
    b = torch.ones(3, dtype=torch.float32)
    found = hg.CG(preconditioner=hg.Nystrom(rank=3)).solve(A.matmul, b)
    torch.testing.assert_close(found.x * size, torch.tensor([1.0, 0.5, 0.25], dtype=torch.float32), rtol=1e-4, atol=0)


@pytest.mark.parametrize("solver", [hg.CG(), hg.Dense()], ids=["cg", "dense"])
def test_no_curvature_needs_damping_above_zero(solver):
    with pytest.raises(hg.IndefiniteError, match=r"larger than 0\.00e\+00"):
        solver.solve(lambda v: torch.zeros_like(v), torch.ones(2))


def test_a_step_that_the_dtype_cannot_hold_counts_as_no_curvature():
    with pytest.raises(hg.IndefiniteError, match="curvature"):
        hg.CG().solve(lambda v: 1e-39 * v, torch.ones(2, dtype=torch.float32))
