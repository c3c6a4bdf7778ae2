"""The status of a factorisation, which goes by its residual, and products that are not exact."""

import pytest
import torch

import hypergrad as hg
from hypergrad.core.operator import Operator


def singular(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """XᵀX of one example less than there are features, and a right-hand side outside its range."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(5, 6, generator=generator)
    return X.T @ X / 5, torch.randn(6, generator=generator)


@pytest.mark.parametrize("solver", [hg.Dense(), hg.Dense(definite=False), hg.Auto()], ids=["dense", "lu", "auto"])
def test_a_singular_system_is_never_called_converged(solver):
    met = 0
    for seed in range(60):
        A, b = singular(seed)
        try:
            found = solver.solve(A.matmul, b)
        except hg.IndefiniteError:
            continue
        met += 1
        true = ((b - A @ found.x).norm() / b.norm()).item()
        assert true / 10 < found.residual < 10 * true  # both are rounding
        assert not found.converged
        assert true > 1e-6
        assert found.condition > 1e12
    assert met > 10


def test_refinement_reaches_what_rounding_allows():
    U = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    A = (U * torch.logspace(0, -5, 20)) @ U.T
    A, b = ((A + A.T) / 2).float(), (A @ torch.ones(20)).float()
    noise = 1e-3 * A.diagonal().mean()
    calls = []

    def product(v):  # the first products, which make the matrix, are off
        calls.append(1)
        return A @ v + (noise * v if len(calls) <= 20 else 0)

    found = hg.Dense().solve(product, b)
    assert len(calls) >= 22  # measured, refined, measured again
    assert found.converged
    assert found.num_matvecs == len(calls)
    assert ((b - A @ found.x).norm() / b.norm()).item() < 1e-3


def test_what_converges_at_once_is_not_refined():
    A = torch.diag(torch.linspace(1, 5, 8))
    b = torch.linspace(-1, 1, 8)
    found = hg.Dense().solve(A.matmul, b)
    norm = b.norm().item()
    factor = torch.linalg.cholesky_ex(A)[0]
    assert torch.equal(found.x, torch.cholesky_solve((b / norm)[:, None], factor)[:, 0] * norm)
    assert (found.converged, found.num_matvecs) == (True, 9)


def test_asymmetry_is_judged_by_the_accuracy_of_the_products():
    generator = torch.Generator().manual_seed(0)
    A = torch.diag(torch.linspace(1, 2, 6)) + 1e-4 * torch.randn(6, 6, generator=generator)
    b = torch.ones(6)
    with pytest.raises(ValueError, match="the optimality condition is not a gradient"):
        hg.Dense().solve(A.matmul, b)
    with pytest.raises(ValueError, match="the optimality condition is not a gradient"):
        hg.Dense().solve(Operator(A.matmul, inaccuracy=lambda: 1e-9), b)
    assert hg.Dense().solve(Operator(A.matmul, inaccuracy=lambda: 1e-4), b).residual < 1e-3


class Logistic(hg.InnerProblem):
    """On features of a large scale, where differences are inexact."""

    def __init__(self, seed: int, scale: float):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.X = scale * torch.randn(30, 5, generator=generator)
        self.sign = torch.randn(30, generator=generator).sign()
        self.w = torch.randn(5, generator=generator) / scale

    def init_params(self):
        return {"w": self.w}

    def hyperparameters(self):
        return {"l2": hg.Hyperparameter(1e-3)}

    def inner_loss(self, params, hparams, batch):
        w = params["w"]
        return torch.nn.functional.softplus(-self.sign * (self.X @ w)).mean() + hparams["l2"] * w.square().sum() / 2

    def outer_loss(self, params, hparams, batch):
        return params["w"].square().sum()


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
def test_inexact_differences_are_not_refused_as_no_gradient(scale):
    for seed in range(5):
        problem = Logistic(seed, scale)
        estimator = hg.Implicit(inner_steps=0, linsolve=hg.Dense(), product=hg.CentredDifferences())
        found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        bar = float(found.stats["error_estimate"])
        exact = hg.Implicit(inner_steps=0, linsolve=hg.Dense()).estimate(
            problem, problem.init_hparams(), problem.init_params()
        )
        # The two differ by what the products leave out, which the bar has to cover, with that of training.
        assert not bar < 0.5 * (found.grad["l2"] - exact.grad["l2"]).norm()
