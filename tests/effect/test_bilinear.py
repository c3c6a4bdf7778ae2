"""Bilinear sampling by operations with all derivatives, against torch's own."""

import pytest
import torch
from torch.nn.functional import grid_sample

from hypergrad.effect import bilinear
from hypergrad.effect.bilinear import by_corners


def drawn(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def images_and_grid(n=2, channels=3):
    """Some positions are outside, or between an edge and the frame."""
    images = drawn(0, n, channels, 4, 5).requires_grad_()
    return images, (2.6 * drawn(1, n, 3, 6, 2) - 1.3).requires_grad_()


def test_values_and_gradients_are_those_of_torch():
    images, grid = images_and_grid()
    right = grid_sample(images, grid, align_corners=False)
    found = by_corners(images, grid)
    assert torch.allclose(found, right, rtol=1e-12, atol=1e-14)
    weights = drawn(2, *right.shape)
    truth = torch.autograd.grad(right, (images, grid), weights)
    for x, y in zip(torch.autograd.grad(found, (images, grid), weights), truth, strict=True):
        assert torch.allclose(x, y, rtol=1e-11, atol=1e-13)


def test_second_derivatives_are_those_of_differences():
    images, grid = images_and_grid(1, 1)
    assert torch.autograd.gradgradcheck(by_corners, (images, grid))


def test_forward_derivatives_are_those_of_differences():
    images, grid = images_and_grid(1, 2)
    assert torch.autograd.gradcheck(by_corners, (images, grid), check_forward_ad=True, check_backward_ad=False)


@pytest.mark.parametrize("version", ["differentiates once", "differentiates twice"])
def test_it_is_used_where_torch_differentiates_once(version, monkeypatch):
    once = version == "differentiates once"
    monkeypatch.setattr(bilinear, "TWICE", not once)
    calls = []
    monkeypatch.setattr(bilinear, "by_corners", lambda *args: calls.append(args) or by_corners(*args))
    images, grid = images_and_grid()
    assert torch.allclose(bilinear.sampled(images, grid), grid_sample(images, grid, align_corners=False))
    assert len(calls) == once


def test_torch_is_tried():
    assert bilinear.torch_differentiates_twice() is (tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13))
