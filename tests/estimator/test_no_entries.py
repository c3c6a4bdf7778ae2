"""A hyperparameter without entries beside others: its hypergradient has none, and that of the others is right."""

import pytest
import torch
from tables import synthetic

import hypergrad as hg


class WithNone(hg.Ridge):
    """Ridge with a hyperparameter of shape (0,) or (2, 0), which the loss sums up."""

    shape = (0,)

    def hyperparameters(self):
        return {"none": hg.Hyperparameter(torch.zeros(self.shape))} | super().hyperparameters()

    def inner_loss(self, params, hparams, batch):
        ridge = {"l2": hparams["l2"]}
        return super().inner_loss(params, ridge, batch) + hparams["none"].sum() * params["weight"].sum()


class WithNoColumns(WithNone):
    shape = (2, 0)


SOLVER = hg.GradientDescent(lr=0.05)
ESTIMATORS = {
    "implicit": hg.Implicit(solver=SOLVER, inner_steps=20),
    "dense": hg.Implicit(solver=SOLVER, inner_steps=20, linsolve=hg.Dense()),
    "differences": hg.Implicit(solver=SOLVER, inner_steps=20, product=hg.CentredDifferences()),
    "forward over reverse": hg.Implicit(solver=SOLVER, inner_steps=20, product=hg.ForwardOverReverse()),
    "forward": hg.Forward(solver=SOLVER, inner_steps=20),
    "unrolled": hg.Unrolled(solver=SOLVER, inner_steps=20),
    "graph": hg.Unrolled(solver=SOLVER, inner_steps=20, tape=hg.Graph()),
    "checkpoint": hg.Unrolled(solver=SOLVER, inner_steps=20, tape=hg.Checkpoint()),
    "reversible": hg.Unrolled(solver=hg.Momentum(lr=0.05, momentum=0.5), inner_steps=20, tape=hg.Reversible()),
    "horizon": hg.Unrolled(solver=SOLVER, inner_steps=20, horizon=8),
}


@pytest.mark.parametrize("kind", [WithNone, WithNoColumns])
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_hyperparameter_without_entries(estimator, kind):
    problem, plain = kind(synthetic(0), l2=0.3), hg.Ridge(synthetic(0), l2=0.3)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    without = estimator.estimate(plain, plain.init_hparams(), plain.init_params())
    assert found.grad["none"].shape == kind.shape
    torch.testing.assert_close(found.grad["l2"], without.grad["l2"], rtol=1e-8, atol=1e-12)


class OnlyNone(hg.Quadratic):
    """Has no other hyperparameter."""

    def hyperparameters(self):
        return {"none": hg.Hyperparameter(torch.zeros(0))}

    def inner_loss(self, params, hparams, batch):
        found = super().inner_loss(params, {"penalty": torch.tensor(0.1), "shift": torch.zeros(3)}, batch)
        return found + hparams["none"].sum() * params["a"].sum()

    def outer_loss(self, params, hparams, batch):
        return params["a"].square().sum()


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_nothing_but_a_hyperparameter_without_entries(estimator):
    problem = OnlyNone()
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.grad["none"].shape == (0,)


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_the_outer_loop_moves_the_others(max_grad_norm):
    problem = WithNone(synthetic(0), l2=0.3)
    before = problem.init_hparams()["l2"].clone()
    result = hg.fit(
        problem,
        estimator=hg.Implicit(solver=hg.Newton(), inner_steps=20),
        optimizer=lambda u: torch.optim.Adam(u, lr=0.1),
        steps=3,
        progress=False,
        max_grad_norm=max_grad_norm,
    )
    assert result.hparams["none"].numel() == 0
    assert result.hparams["l2"] != before
