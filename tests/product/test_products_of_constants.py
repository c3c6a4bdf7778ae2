"""Products with Hessians that are constant or zero, and the dtype of what products give."""

import pytest
import torch

import hypergrad as hg
from hypergrad.core.operator import columns_of


class Slope(hg.InnerProblem):
    """g = |X w| summed + l · w²/2: its Hessian is that of the penalty alone, and zero without it."""

    X = torch.tensor([[1.0, 2.0, 0.5], [0.3, -1.0, 2.0]], dtype=torch.float32)

    def __init__(self, penalised: bool):
        super().__init__()
        self.penalised = penalised

    def init_params(self):
        return {"w": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float32)}

    def hyperparameters(self):
        return {"l": hg.Hyperparameter(0.5)}

    def outputs(self, params, hparams, batch):
        return self.X @ params["w"]

    def loss_of_outputs(self, outputs, params, hparams, batch):
        w = params["w"]
        return outputs.abs().sum() + hparams["l"] * (w.square().sum() / 2 if self.penalised else w.sum())

    def inner_loss(self, params, hparams, batch):
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def outer_loss(self, params, hparams, batch):
        return params["w"].square().sum() / 2


PRODUCTS = [hg.Reverse(), hg.ForwardOverReverse(), hg.CentredDifferences(), hg.GaussNewton(), hg.Traced()]


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("linsolve", [hg.CG(), hg.Dense(), hg.Nystrom(rank=3)], ids=lambda s: type(s).__name__)
def test_a_loss_of_straight_pieces_has_the_hessian_of_its_penalty(product, linsolve):
    problem = Slope(penalised=True)
    estimator = hg.Implicit(inner_steps=0, product=product, linsolve=linsolve, error_bar=False)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.grad["l"].dtype == torch.float32  # of a scalar λ too
    torch.testing.assert_close(found.grad["l"].item(), -14.0 / 0.5, rtol=1e-2, atol=0)


@pytest.mark.parametrize("product", PRODUCTS[:4], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("linsolve", [hg.Dense(), hg.Nystrom(rank=3)], ids=lambda s: type(s).__name__)
def test_a_hessian_that_is_zero_is_refused_by_name(product, linsolve):
    problem = Slope(penalised=False)
    estimator = hg.Implicit(inner_steps=0, product=product, linsolve=linsolve, error_bar=False)
    if isinstance(product, hg.CentredDifferences):
        product = hg.CentredDifferences(step=1e-2)
    with pytest.raises(hg.IndefiniteError, match="positive definite"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_columns_of_a_product_that_ignores_its_vector():
    found = columns_of(lambda v: torch.zeros(4))(torch.randn(4, 3))
    torch.testing.assert_close(found, torch.zeros(4, 3))
