"""The standard error of a hypergradient of mean losses, against the spread over fresh batches."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hypergrad as hg

N, BATCHES = 3, 12


def inner(w, hp, batch):
    A, b, _ = batch
    return w @ A @ w / 2 - b @ w + (hp * w.square()).sum() / 2


def outer(w, hp, batch):
    return (w - batch[2]).square().sum() / 2


def errors(found):
    assert found.sampling is not None
    return found.sampling.standard_errors


def batches(generator):
    """Curvatures, slopes and targets of mean I, 1 and 2."""
    for _ in range(BATCHES):
        Z = torch.randn(N, 40, generator=generator)
        yield Z @ Z.T / 40, 1 + 0.3 * torch.randn(N, generator=generator), 2 + torch.randn(N, generator=generator)


@pytest.mark.parametrize(
    ("size", "damping", "repeats", "allowed"),
    [
        (1, 0.0, 25, 1.5),
        pytest.param(N, 0.3, 60, 1.3, marks=pytest.mark.slow),  # the spread of 60 is known to 9 %
        pytest.param(20, 0.0, 25, 1.7, marks=pytest.mark.slow),  # the worst of 20
        pytest.param(N, 0.0, 200, 1.2, marks=pytest.mark.slow),
        pytest.param(20, 0.3, 200, 1.3, marks=pytest.mark.slow),
    ],
)
def test_it_is_the_spread_over_fresh_batches(size, damping, repeats, allowed):
    generator = torch.Generator().manual_seed(0)
    w, hp = torch.full((N,), 1 / 1.5), torch.full((size,), 0.5)
    expand = torch.randn(N, size, generator=generator) / size**0.5

    def loss(w, hp, batch):
        return inner(w, hp if size <= N else 0.5 + expand @ (hp - 0.5), batch)

    found = [
        hg.hypergradient(
            loss, outer, w, hp, batches=batches(generator), damping=damping, linsolve=hg.Dense(), error_bar=False
        )
        for _ in range(repeats)
    ]
    spread = torch.stack([one.grad for one in found]).std(0)
    reported = torch.stack([errors(one) for one in found]).square().mean(0).sqrt()
    assert (reported / spread).log().abs().max() < math.log(allowed)
    for one in found[:3]:
        total = errors(one).norm().item()
        assert one.stats["standard_error"] == pytest.approx(total, rel=1e-12)
        assert one.stats["num_batches"] == BATCHES


def test_both_orders_of_the_products_agree():
    generator = torch.Generator().manual_seed(1)
    w, hp, given = torch.full((N,), 0.7), torch.tensor([0.4, 0.5, 0.6]), list(batches(generator))
    by_columns, by_batches = (
        hg.hypergradient(
            inner, outer, w, hp, batches=given, product=product, linsolve=hg.Dense(), error_bar=False
        ).sampling
        for product in (hg.Reverse(), hg.CentredDifferences())
    )
    assert by_columns is not None
    assert by_batches is not None
    torch.testing.assert_close(by_columns.standard_errors, by_batches.standard_errors, rtol=1e-6, atol=0)


def test_the_result_is_that_of_the_mean_loss():
    generator = torch.Generator().manual_seed(1)
    w, hp, given = torch.full((N,), 0.7), torch.tensor([0.4, 0.5, 0.6]), list(batches(generator))
    A, b, c = (torch.stack(x).mean(0) for x in zip(*given, strict=True))
    H = A + torch.diag(hp)
    wanted = -w * torch.linalg.solve(H, w - c)
    found = hg.hypergradient(inner, outer, w, hp, batches=given, linsolve=hg.Dense(), error_bar=False)
    torch.testing.assert_close(found.grad, wanted, rtol=1e-10, atol=0)
    single = hg.hypergradient(inner, outer, w, hp, batches=given[:1], linsolve=hg.Dense(), error_bar=False)
    assert math.isnan(float(single.stats["standard_error"]))
    assert single.stats["num_batches"] == 1


@pytest.mark.slow
def test_dropout_and_a_loader():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
    module = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 1))

    def loss(m, hp, batch):
        X, y = batch
        return nn.functional.mse_loss(m(X), y) + hp["l2"] * sum(p.square().sum() for p in m.parameters())

    def dev(m, hp, batch):
        return nn.functional.mse_loss(m[1](batch[0]), batch[1])

    found = []
    for seed in (*range(12), 0):
        loader = DataLoader(data, batch_size=5)
        found.append(
            hg.hypergradient(
                loss, dev, module, {"l2": 0.1}, batches=loader, seed=seed, linsolve=hg.Dense(), error_bar=False
            )
        )
    assert found[-1].grad == found[0].grad  # a function of the seed
    assert len({one.grad["l2"] for one in found}) == 12
    assert isinstance(found[0].sampling.standard_errors["l2"], float)
    # the batches are the same in all, so only the masks differ, and the whole standard error is larger
    spread = torch.tensor([one.grad["l2"] for one in found[:-1]]).std()
    assert 0 < spread < found[0].stats["standard_error"]


def test_a_known_standard_error():
    """(w − c_b)²/2 is the only loss that differs: at w = a / (1 + λ), G_b = −w (w − c_b) / (1 + λ)."""
    c, λ, w = torch.tensor([0.3, 1.0, 2.5, 2.7]), torch.tensor(0.5), torch.tensor(2.0)
    found = hg.hypergradient(
        lambda w, λ, c: (w - 3).square() / 2 + λ * w.square() / 2, lambda w, λ, c: (w - c).square() / 2, w, λ, batches=c
    )
    assert torch.allclose(found.grad, -w * (w - c.mean()) / (1 + λ), rtol=1e-10)
    assert found.stats["standard_error"] == pytest.approx((w / (1 + λ) * c.std() / 2).item(), rel=1e-10)
    assert found.stats["num_batches"] == 4
