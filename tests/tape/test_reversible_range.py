"""The range of the fixed-point numbers in which the reversible tape begins."""

import pytest
import torch

import hypergrad as hg


class Scaled(hg.InnerProblem):
    """(w/unit − 1)² + l (w/unit)²."""

    def __init__(self, unit: float):
        super().__init__()
        self.unit = unit

    def init_params(self):
        return {"w": torch.tensor([0.5, 2.0]) * self.unit}

    def hyperparameters(self):
        return {"l": hg.Hyperparameter(0.5)}

    def inner_loss(self, params, hparams, batch):
        u = params["w"] / self.unit
        return (u - 1).square().sum() + hparams["l"] * u.square().sum()

    def outer_loss(self, params, hparams, batch):
        return (params["w"] / self.unit).square().sum()


def estimate(unit: float, tape: hg.Tape):
    problem = Scaled(unit)
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.1 * unit**2, momentum=0.5), tape=tape, inner_steps=4)
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_parameters_below_the_smallest_number():
    with pytest.raises(ValueError, match=r"multiples of 2\^-48 = 3.6e-15, but the largest parameter .* is 2.0e-30"):
        estimate(1e-30, hg.Reversible())


def test_parameters_above_the_largest_number():
    with pytest.raises(hg.FixedPointOverflowError, match=r"start of training has in 'w' a value of 2e\+30.*Lower"):
        estimate(1e30, hg.Reversible())


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_the_automatic_tape_passes_over_what_cannot_serve(unit):
    tape = hg.AutoTape(budget=2000.0)
    assert torch.allclose(estimate(unit, tape).grad["l"], estimate(1.0, hg.Graph()).grad["l"], rtol=1e-10)
