"""Lengths of vectors whose squares leave the range of their format."""

import math

import pytest
import torch

import hypergrad as hg
from hypergrad.core.length import length


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-19, 1.0, 1e19, 1e30])
def test_the_length_in_float32_is_right_for_every_size(size):
    x = torch.tensor([3.0, -4.0], dtype=torch.float32) * size
    assert length(x) == pytest.approx(torch.linalg.vector_norm(x.double()).item(), rel=1e-5)


def test_numbers_of_usual_size_are_what_torch_says():
    x = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    assert length(x) == torch.linalg.vector_norm(x).item()


def test_zero_nothing_infinity_and_nan():
    assert length(torch.zeros(3)) == length(torch.zeros(0)) == 0.0
    assert length(torch.tensor([1.0, math.inf])) == math.inf
    assert math.isnan(length(torch.tensor([1.0, math.nan])))


class Tiny(hg.InnerProblem):
    """A float32 least-squares problem whose losses are in units of 1e-30."""

    def init_params(self):
        return {"w": torch.ones(2, dtype=torch.float32)}

    def hyperparameters(self):
        return {"l": hg.Hyperparameter(0.5)}

    def inner_loss(self, params, hparams, batch):
        return 1e-30 * ((params["w"] - 3).square().sum() + hparams["l"] * params["w"].square().sum())

    def outer_loss(self, params, hparams, batch):
        return params["w"].sum()


def test_a_tiny_gradient_is_not_taken_for_a_minimum():
    estimator = hg.Implicit(solver=hg.GradientDescent(lr=1e29), inner_steps=100, inner_tol=1e-4, error_bar=False)
    found = estimator.estimate(Tiny(), Tiny().init_hparams(), Tiny().init_params())
    assert found.stats["inner_status"] == "converged"
    assert float(found.stats["inner_steps"]) > 0
    torch.testing.assert_close(found.params["w"], torch.full((2,), 2.0, dtype=torch.float32), rtol=1e-3, atol=0)
    # w = 3/(1 + l), so dF/dl = −2 · 3/(1 + l)².
    torch.testing.assert_close(found.grad["l"].item(), -6 / 1.5**2, rtol=1e-3, atol=0)
