import pytest
import torch
from torch.nn import functional

import hypergrad as hg


def test_forward_spends_one_product_for_each_hyperparameter_and_step():
    problem = hg.Supervised(
        model=torch.nn.Linear(3, 1),
        loss=functional.mse_loss,
        train=(torch.eye(3), torch.ones(3, 1)),
        dev=(2 * torch.eye(3), torch.ones(3, 1)),
        hyperparameters={"l2": hg.L2(init=0.1), "smoothing": hg.L2(init=0.2)},
    )
    estimator = hg.Forward(solver=hg.GradientDescent(lr=0.1), inner_steps=5)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.unrolling is not None
    assert found.unrolling.num_matvecs == 10


def test_implicit_refuses_a_negative_tolerance():
    with pytest.raises(ValueError, match="inner_tol"):
        hg.Implicit(inner_tol=-1.0)
