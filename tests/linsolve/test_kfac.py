"""K-FAC and EK-FAC as solvers and as preconditioners, against the dense solve."""

import pytest
import torch
from layered_problems import (
    NEEDS_CURVLINOPS,
    K,
    N,
    P,
    apart,
    cnn,
    curvature,
    data,
    estimate,
    linear,
    mlp,
    seeded,
    supervised,
)
from slow_cases import mostly_slow
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import flatten

pytestmark = NEEDS_CURVLINOPS


@pytest.mark.parametrize("loss", [mse_loss, nn.MSELoss(reduction="sum")], ids=["mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [hg.KFAC, hg.EKFAC])
def test_a_linear_model_with_squared_loss_is_solved_exactly(kind, bias, loss):
    problem = supervised(seeded(lambda: nn.Linear(P, K, bias=bias)), loss=loss)
    found = estimate(problem, kind(damping=0.0))
    assert apart(found, estimate(problem, hg.Dense())) <= 1e-8
    assert found.stats["adjoint_status"] == "converged"
    assert found.stats["num_matvecs"] == 1


def test_penalties_of_each_feature_are_a_part_of_what_is_solved():
    """With orthogonal inputs the eigenvectors are the features, so that the diagonal is exact."""
    X = torch.linalg.qr(torch.randn(N, P, generator=torch.Generator().manual_seed(0)))[0] * torch.arange(1.0, P + 1)
    y = data(0, classes=False)[1]
    penalty = hg.L2(init=0.02, per="weight")
    model = seeded(lambda: nn.Linear(P, K, bias=False))
    problem = hg.Supervised(model=model, loss=mse_loss, train=(X, y), dev=(X + 1, y), hyperparameters={"l2": penalty})
    scale = torch.linspace(0.01, 0.5, P).repeat(K)
    A = curvature(problem, {"l2": scale})
    found = hg.KFAC(damping=0.0).solve(A, torch.ones(P * K))
    assert found.residual <= 1e-10


def test_on_softmax_regression_ekfac_beats_kfac_and_that_the_identity():
    problem = supervised(linear())
    exact = estimate(problem, hg.Dense())
    error = {kind: apart(estimate(problem, kind(damping=0.0)), exact) for kind in (hg.KFAC, hg.EKFAC)}
    identity = apart(estimate(problem, hg.CG(max_iter=1, tol=0.0)), exact)  # the best multiple of ∂f/∂w
    assert error[hg.EKFAC] < error[hg.KFAC] < identity


@pytest.mark.parametrize("kind", [hg.KFAC, hg.EKFAC])
@pytest.mark.parametrize("fisher", mostly_slow(["type-2", "mc", "empirical"], ["type-2"]))
@pytest.mark.parametrize(("model", "shape"), mostly_slow({"mlp": (mlp, (P,)), "cnn": (cnn, (2, 4, 4))}, ["mlp"]))
def test_preconditioned_cg_agrees_with_the_dense_solve(model, shape, fisher, kind):
    problem = supervised(model(), shape=shape)
    tol = 1e-9
    found = estimate(problem, hg.CG(tol=tol, max_iter=500, preconditioner=kind(fisher=fisher)), damping=0.05)
    assert found.stats["adjoint_status"] == "converged"
    assert apart(found, estimate(problem, hg.Dense(), damping=0.05)) <= 1e3 * tol


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
def test_ekfac_needs_fewer_products_than_plain_cg(approximation):
    """On badly scaled inputs."""
    X, y = data(0)
    X = X * torch.logspace(0, -2, P)
    problem = hg.Supervised(
        model=linear(), loss=cross_entropy, train=(X, y), dev=(X + 1, y), hyperparameters={"l2": hg.L2(init=1e-5)}
    )
    A, b = curvature(problem), torch.randn(P * K + K, generator=torch.Generator().manual_seed(0))
    plain = hg.CG(tol=1e-6).solve(A, b)
    found = hg.CG(tol=1e-6, preconditioner=hg.EKFAC(damping=0.0, approximation=approximation)).solve(A, b)
    assert found.converged
    assert found.num_matvecs <= plain.num_matvecs / 2


def test_as_a_solver_it_says_its_residual():
    problem = supervised(mlp())
    A, b = curvature(problem).shifted(0.3), torch.ones(65)
    found = hg.KFAC().solve(A, b)
    assert found.status == "max_iter"
    assert "KFAC" in found.remark
    assert found.residual == pytest.approx(((b - A(found.x)).norm() / b.norm()).item(), rel=1e-12)
    assert found.num_matvecs == 3  # two probes of the normalisation, and the residual
    several = hg.KFAC().inverse(A, b)(torch.stack([b, 2 * b], 1))
    assert (several.x[:, 1] - 2 * found.x).norm() <= 1e-12 * found.x.norm()
    assert hg.KFAC(tol=10.0).solve(A, b).converged


def test_the_error_bar_of_kfac_covers_its_error():
    problem = supervised(linear())
    found = estimate(problem, hg.EKFAC(damping=0.0), error_bar=True)
    exact = estimate(problem, hg.Dense())
    distance = (flatten(found.grad) - flatten(exact.grad)).norm().item()
    assert found.stats["error_status"] == "estimated"
    assert distance <= float(found.stats["error_estimate"]) <= 100 * distance


def test_auto_tries_it_where_it_is_asked_to():
    X, y = data(0, n=300, shape=(500,))
    X = X * torch.logspace(0, -2, 500)
    model, l2 = seeded(lambda: nn.Linear(500, K)), {"l2": hg.L2(init=1e-4)}
    problem = hg.Supervised(model=model, loss=cross_entropy, train=(X, y), dev=(X + 1, y), hyperparameters=l2)
    A, b = curvature(problem), torch.randn(501 * K, generator=torch.Generator().manual_seed(0))
    found = hg.Auto(kfac=True).solve(A, b)
    assert found.converged
    assert "preconditioned by strongly damped EK-FAC" in found.remark
    assert (b - A(found.x)).norm() <= 1e-6 * b.norm()
    before = hg.Auto().solve(A, b)
    assert "EK-FAC" not in before.remark
    assert found.num_matvecs < before.num_matvecs
