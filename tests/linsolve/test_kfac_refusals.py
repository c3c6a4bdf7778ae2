"""What K-FAC and EK-FAC do not serve, and what they say."""

import sys

import pytest
import torch
from layered_problems import (
    NEEDS_CURVLINOPS,
    K,
    P,
    curvature,
    data,
    estimate,
    linear,
    seeded,
    supervised,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

import hypergrad as hg
from hypergrad.core.errors import IndefiniteError

pytestmark = NEEDS_CURVLINOPS


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(K, P))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.scale.T


def huber() -> hg.Supervised:
    train, dev = (data(seed, classes=False) for seed in (0, 1))
    return hg.Supervised(
        model=linear(), loss=nn.functional.huber_loss, train=train, dev=dev, hyperparameters={"l2": hg.L2(init=0.1)}
    )


def test_refusals_name_the_remedy(monkeypatch):
    with pytest.raises(ValueError, match=r"huber_loss, is none of .*CrossEntropyLoss.*hg.CG"):
        estimate(huber(), hg.KFAC(), trained=False)
    embedded = seeded(lambda: nn.Sequential(nn.LayerNorm(P), nn.Flatten(), Scaled()))
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        estimate(supervised(embedded), hg.EKFAC(), trained=False)
    with pytest.raises(ValueError, match="nothing is known here but products"):
        hg.KFAC().solve(torch.eye(3).mv, torch.ones(3))
    with pytest.raises(ValueError, match="fisher must be one of"):
        hg.KFAC(fisher="exact")
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(ImportError, match=r"torch-hypergrad\[curvature\]"):
        estimate(supervised(linear()), hg.KFAC(), trained=False)


def test_a_singular_block_needs_damping():
    """Two inputs are the same, and nothing is penalised."""
    X, y = data(0)
    X[:, 1] = X[:, 0]
    problem = hg.Supervised(
        model=linear(),
        loss=mse_loss,
        train=(X, one_hot(y, K).double()),
        dev=(X + 1, one_hot(y, K).double()),
        hyperparameters={"c": hg.ExampleWeights()},
    )
    for kind in (hg.KFAC, hg.EKFAC):
        with pytest.raises(IndefiniteError, match="singular.*damping > 0"):
            estimate(problem, kind(damping=0.0), trained=False)
        assert estimate(problem, kind(damping=0.1), trained=False).grad["c"].isfinite().all()


def test_outputs_of_more_dimensions_are_for_kfac_alone():
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, K, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    X = torch.randn(20, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randint(K, (20, 3, 3), generator=torch.Generator().manual_seed(0))
    problem = hg.Supervised(
        model=seeded(Pixels), loss=cross_entropy, train=(X, y), dev=(X + 1, y), hyperparameters={"l2": hg.L2(init=0.1)}
    )
    with pytest.raises(ValueError, match="EKFAC cannot serve.*shape .n, k.*K-FAC takes these"):
        estimate(problem, hg.EKFAC(), trained=False)
    A, b = curvature(problem), torch.ones(3 * K)
    assert hg.CG(tol=1e-9, preconditioner=hg.KFAC(damping=0.0)).solve(A, b).converged


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(hg.Supervised, "is_spread", property(lambda self: True))
    with pytest.raises(ValueError, match="several processes"):
        estimate(supervised(linear()), hg.KFAC(), trained=False)
