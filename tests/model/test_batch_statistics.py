"""Batch normalisation by given moments is torch's if they are those of the batch."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradgradcheck
from torch.nn.functional import batch_norm

from hypergrad.model.batch_statistics import moments_of, normalizing_by


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_moments(x, *args, **settings):
    with normalizing_by(moments_of):
        return batch_norm(x, *args, **settings)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 2, 5)])
def test_same_as_in_torch(shape, affine):
    x, weight, bias = 1e4 + draw(*shape), draw(3, seed=1), draw(3, seed=2)
    settings: dict[str, Any] = {"weight": weight, "bias": bias} if affine else {}
    wanted = batch_norm(x, None, None, **settings, training=True, eps=1e-3)
    assert torch.allclose(by_moments(x, None, None, **settings, training=True, eps=1e-3), wanted, rtol=1e-9, atol=1e-9)


def test_second_derivatives():
    x = draw(4, 2).requires_grad_()
    weight, bias = draw(2, seed=1).requires_grad_(), draw(2, seed=2).requires_grad_()
    assert gradgradcheck(lambda x, w, b: by_moments(x, None, None, w, b, training=True), (x, weight, bias))


def test_sums_in_bfloat16_are_in_float32():
    x = (100 + draw(512, 2)).bfloat16()
    found = by_moments(x, None, None, training=True)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.double(), batch_norm(x.double(), None, None, training=True), atol=2e-2)


def test_running_averages_stay_constants():
    x, mean, var = draw(4, 3), draw(3, seed=1), draw(3, seed=2).square()
    wanted = batch_norm(x, mean, var)
    assert torch.equal(by_moments(x, mean, var), wanted)
    layer = nn.BatchNorm1d(3).double().eval()
    with normalizing_by(moments_of):
        found = layer(x)
    assert torch.equal(found, layer(x))
