"""Several iterations of conjugate gradient per call."""

from functools import partial

import pytest
import torch
from spectra import SPECTRA, N, rhs, spd
from test_windows import Waits

import hypergrad as hg


def fused(A: torch.Tensor) -> hg.Operator:
    """An operator whose functions run several iterations per call, as if they were compiled."""
    return hg.Operator(A.matmul, compile=lambda f: partial(f, A.matmul), dtype=A.dtype)


@pytest.mark.parametrize("name", ["one eigenvalue", "two eigenvalues", "spread", "condition 1e3"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_fused_iterations_agree_with_a_dense_solve(name, damping):
    A = spd(SPECTRA[name])
    found = hg.CG(max_iter=500, tol=1e-10).solve(fused(A).shifted(damping), rhs())
    truth = torch.linalg.solve(A + damping * torch.eye(N), rhs())
    assert found.converged
    assert (found.x - truth).norm() <= 1e-7 * truth.norm()


@pytest.mark.parametrize("steps", [3, 5, 7, 12])
@pytest.mark.parametrize(
    ("spectrum", "preconditioner"), [("condition 1e3", None), ("spread", hg.Nystrom(rank=4))], ids=["plain", "Nyström"]
)
def test_fused_iterations_are_the_same_iterations(steps, spectrum, preconditioner):
    A = spd(SPECTRA[spectrum])
    cg = hg.CG(max_iter=steps, tol=0.0, preconditioner=preconditioner)
    found, plain = cg.solve(fused(A), rhs()), cg.solve(A.matmul, rhs())
    assert found.num_matvecs == plain.num_matvecs == steps + (0 if preconditioner is None else 4)
    assert (found.x - plain.x).norm() <= 1e-10 * plain.x.norm()


def test_the_last_iterations_are_compiled_too():
    A, met = spd(SPECTRA["condition 1e3"]), []

    def compiled(f):
        return lambda *tensors: met.append(f.__name__) or f(A.matmul, *tensors)

    operator = hg.Operator(A.matmul, compile=compiled, dtype=A.dtype)
    assert hg.CG(max_iter=12, tol=0.0).solve(operator, rhs()).num_matvecs == 12
    assert met == ["iterations", "iterations", "iteration", "iteration"]


def test_fused_iterations_refuse_what_the_others_refuse():
    indefinite = spd(torch.cat([torch.tensor([-0.5]), torch.linspace(0.5, 3.0, N - 1)]))
    with pytest.raises(hg.IndefiniteError, match=r"step \d+ met curvature .*-"):
        hg.CG().solve(fused(indefinite), rhs())
    with pytest.raises(hg.NonFiniteError, match="Product 1 with A"):
        hg.CG().solve(fused(torch.full((N, N), float("nan"), dtype=torch.float64)), rhs())


def test_the_host_waits_once_for_each_call():
    A, waits = spd(torch.logspace(-2, 1, 150)), []
    for iterations in (20, 70):
        with Waits() as met:
            hg.CG(max_iter=iterations, tol=0.0).solve(fused(A).shifted(0.1), rhs(150))
        waits.append(met.count)
    assert waits[1] - waits[0] == 10
